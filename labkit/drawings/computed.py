"""Figures for drawings that only torch can compute. A rank computes them in its own process, so nothing here loads matplotlib.

Networks are built on torch's meta device: tensors have shapes and no numbers, so any size takes no memory and no time. The
functions with `rank` and `progress` are what a job starts (engine/job.py); they return plain data.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from labkit.rows.catalog import DATASETS
from labkit.rows.spec import Spec

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
)  # a letter whose mirror image looks different, so that a flip shows


@dataclass
class Part:
    """The stem, a stage (blocks of one size) or the head of a network. `parameters`: how many. `work`: multiply-adds of one image's
    forward."""

    name: str
    blocks: int = 0
    parameters: int = 0
    work: int = 0


def parts_of(*, rank: int, progress: Any, models: list[str]) -> dict[str, list[dict[str, Any]]]:
    """For each model its parts, as dicts with the fields of `Part`."""
    return {model: [asdict(part) for part in parts(model)] for model in models}


def parts(model_name: str) -> list[Part]:
    """The parts of one model, from stem to head. Raises KeyError for an unknown model."""
    import torch  # late: keeps torch out of a process that does not need it

    from labkit.engine.models import MODELS, build_model  # late: keeps torch out of a process that does not need it

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
    """A hook, after a layer's forward: adds its multiply-adds to the part. Every number that comes out is a sum over one filter,
    so it costs as many multiply-adds as the filter has weights."""
    part.work += out.numel() * module.weight[0].numel()


def bytes_of(*, rank: int, progress: Any, model: str, batches: list[int]) -> list[tuple[int, int]]:
    """`bytes_for` each of these batch sizes."""
    return [bytes_for(model, batch) for batch in batches]


def bytes_for(model_name: str, batch: int) -> tuple[int, int]:
    """(bytes of the parameters, bytes that forward keeps for backward), in fp32, for a batch of `batch` images. Of what forward keeps
    each storage counts once, and parameters do not count."""
    import torch  # late: keeps torch out of a process that does not need it

    from labkit.engine.models import build_model  # late: keeps torch out of a process that does not need it

    with torch.device("meta"):
        model = build_model(model_name, *PUBLISHED)
        x, y = torch.empty(batch, 3, 32, 32), torch.zeros(batch, dtype=torch.long)
    own = {p.untyped_storage()._cdata for p in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}  # holds the storages, so that no other one can get the same address

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        torch.nn.functional.cross_entropy(model(x), y)
    return sum(p.nbytes for p in model.parameters()), sum(storage.nbytes() for storage in kept.values())


def views(*, rank: int, progress: Any, caches: list[str], epochs: int) -> dict[str, list[list[list[float]]]]:
    """For each cache, and each epoch, the same picture as it is trained, 16 x 16 numbers from 0 to 1: cropped and flipped as
    `labkit.data.batches.Draws` says."""
    from labkit.data.batches import Draws  # late: keeps torch out of a process that does not need it

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
