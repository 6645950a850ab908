"""What drawings show that only torch can compute. A rank does it, in its own process, and so nothing here loads matplotlib.

Networks are built on torch's meta device: shapes without numbers, so any size costs nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

PUBLISHED = (64, 3, 100)  # width, channels, classes; and images of 32x32, as the published figures suggest
LETTER = (
    "........",
    ".#######",
    ".#......",
    ".#####..",
    ".#......",
    ".#......",
    ".#......",
    "........",
)  # told from its mirror image


@dataclass
class Part:
    """The stem, a stage (blocks of one size) or the head: parameters, and multiply-adds for one image's forward."""

    name: str
    blocks: int = 0
    parameters: int = 0
    work: int = 0


def parts_of(*, rank: int, progress: Any, models: list[str]) -> dict[str, list[dict[str, Any]]]:
    return {model: [asdict(part) for part in parts(model)] for model in models}


def parts(model_name: str) -> list[Part]:
    import torch

    from labkit.engine.models import MODELS, build_model

    with torch.device("meta"):
        model = build_model(model_name, *PUBLISHED)
        x = torch.empty(1, 3, 32, 32)
    sizes = [1, *MODELS[model_name][1], 1]
    found = [Part(name, n) for name, n in zip(("stem", "stage 1", "stage 2", "stage 3", "stage 4", "head"), sizes, strict=True)]
    layer = iter(model)
    for part in found:
        for _ in range(part.blocks):
            block = next(layer)
            for module in block.modules():
                if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
                    module.register_forward_hook(lambda m, _x, out, part=part: count(m, out, part))
            part.parameters += sum(p.numel() for p in block.parameters())
            x = block(x)
    return found


def count(module, out, part: Part) -> None:
    """Every number that comes out is a sum over one filter: as many multiply-adds as the filter has weights."""
    part.work += out.numel() * module.weight[0].numel()


def bytes_of(*, rank: int, progress: Any, model: str, batches: list[int]) -> list[tuple[int, int]]:
    return [bytes_for(model, batch) for batch in batches]


def bytes_for(model_name: str, batch: int) -> tuple[int, int]:
    """Bytes of the parameters, and of what forward keeps for backward (each storage once, parameters left out), in fp32."""
    import torch

    from labkit.engine.models import build_model

    with torch.device("meta"):
        model = build_model(model_name, *PUBLISHED)
        x, y = torch.empty(batch, 3, 32, 32), torch.zeros(batch, dtype=torch.long)
    own = {p.untyped_storage()._cdata for p in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}  # the storage is kept, or another could get its address

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        torch.nn.functional.cross_entropy(model(x), y)
    return sum(p.nbytes for p in model.parameters()), sum(storage.nbytes() for storage in kept.values())


def views(*, rank: int, progress: Any, caches: list[str], epochs: int) -> dict[str, list[list[list[float]]]]:
    """For each cache one picture as it is trained in each epoch: cropped and flipped by the draws that `labkit.data.batches` makes."""
    from labkit.data.batches import Draws
    from labkit.rows.catalog import DATASETS
    from labkit.rows.spec import Spec

    picture = np.array([[letter == "#" for letter in row] for row in LETTER], dtype=float).repeat(2, 0).repeat(2, 1)
    padded, i = np.pad(picture, DATASETS["cifar10"].crop_padding), 3
    seen: dict[str, list[list[list[float]]]] = {cache: [] for cache in caches}
    for cache in caches:
        for epoch in range(epochs):
            draws = Draws(Spec(cache=cache, dataset="cifar10", image_size=16), 8, epoch)
            dy, dx = draws.offsets[i]
            crop = padded[dy : dy + 16, dx : dx + 16]
            seen[cache].append((crop[:, ::-1] if draws.flips[i] else crop).tolist())
    return seen
