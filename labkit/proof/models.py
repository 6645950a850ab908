"""What a strategy is proved on: small models with traps, their images, and two ways of SGD.

The traps are parts of a model that a wrong exchange treats wrongly: a tied weight, a frozen parameter, a parameter that never gets a
gradient, and a buffer drawn at random. (After the toy models of Stanford's course CS336, assignment 2.) None of them has BatchNorm:
it normalises over the images that a rank sees at once, so a split batch is another function there, in every framework.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from labkit.engine.models import build_model
from labkit.rows.spec import Spec

CLASSES = 4


class Shift(nn.Module):
    """A buffer drawn at random: ranks that do not take rank 0's compute something else."""

    drawn: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("drawn", torch.randn(6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Images (b, 6, h, w), shifted by one number a channel."""
        return x + self.drawn


def traps(unused: bool = True, tied_across: bool = False) -> nn.Sequential:
    """A network of four blocks, images (b, 3, h, w) -> logits (b, CLASSES). `unused`: with a parameter that gets no gradient.
    `tied_across`: two blocks share a weight, not only two layers of one block."""
    frozen = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), Shift(), nn.Tanh())
    frozen[0].bias.requires_grad_(False)
    tied = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 6, 3, padding=1), nn.Tanh())
    tied[2].weight = tied[0].weight  # inside one block, as FSDP's units and a pipeline's stages need it
    strided = nn.Sequential(nn.Conv2d(6, 6, 3, stride=2, padding=1), nn.Tanh())
    if tied_across:
        strided[0].weight = tied[0].weight
    if unused:  # never gets a gradient, so SGD must leave it alone; a gradient of zeros would let weight decay shrink it
        strided.register_parameter("never", nn.Parameter(torch.randn(5)))
    return nn.Sequential(frozen, tied, strided, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES)))


# The ResNets are in float64: ReLUs and norms would make 1e-4 of float32's rounding in five steps. (Width 4: float64 does not use the
# library for which Spec asks for at least 8 channels.)
MODELS: dict[str, Callable[[], nn.Sequential]] = {
    "traps": traps,
    "all used": lambda: traps(unused=False),
    "tied across": lambda: traps(unused=False, tied_across=True),
    "batch norm": lambda: build_model("resnet18", 4, 3, CLASSES, "batch").double(),
    "group norm": lambda: build_model("resnet18", 4, 3, CLASSES, "group").double(),
}


def seeded(name: str, spec: Spec, rank: int) -> nn.Sequential:
    """The model as this rank starts with it. As in a run, every rank draws other weights."""
    torch.manual_seed(spec.seed + rank)
    return MODELS[name]().to(memory_format=torch.channels_last if spec.channels_last else torch.contiguous_format)


def batch(step: int, model: nn.Module, images: int) -> tuple[Tensor, Tensor]:
    """Images (images, 3, 8, 8) and labels (images,) of a step, the same on every rank."""
    draw = torch.Generator().manual_seed(1000 + step)
    x, y = torch.randn(images, 3, 8, 8, generator=draw), torch.randint(CLASSES, (images,), generator=draw)
    return x.to(next(model.parameters()).dtype), y
