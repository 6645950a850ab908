"""Drawings of the networks, computed from labkit.models on torch's meta device: shapes without numbers, so any size costs nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from matplotlib.figure import Figure

from labkit import params
from labkit.drawings_kit import GREY, LINE, Sheet, drawn, in_a_rank
from labkit.looks import lighter

PUBLISHED = (64, 3, 100)  # width, channels, classes; and images of 32x32, as the published figures suggest
NETWORKS = ["resnet18", "resnet34", "resnet50"]
MIB = 2**20


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

    from labkit.models import MODELS, build_model

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


@drawn
def three_networks() -> Figure:
    """The blocks of ResNet-18, 34 and 50, and where their parameters and their work lie: parameters mostly at the end,
    work in all stages."""
    s = Sheet(13.2, 7.3, "Three networks: where the parameters are, and where the work is",
              "Computed for width 64, 32×32 images and 100 classes. Work: multiply-adds of one image's forward; backward does about twice as much.")  # fmt: skip
    dark, light = "#2f6ea5", "#f0a34a"
    wide, left = 1.62, 1.95
    computed = in_a_rank("labkit.drawings_models:parts_of", models=NETWORKS)
    for line, name in enumerate(NETWORKS):
        found, y = [Part(**part) for part in computed[name]], 4.75 - line * 1.95
        total, work = sum(p.parameters for p in found), sum(p.work for p in found)
        s.text(0.2, y + 1.2, name, 13, ha="left", weight="bold")
        s.text(0.2, y + 0.55, f"{total / 1e6:.1f} M parameters\n{work / 1e9:.2f} G of work", 11, ha="left")
        s.text(
            11.75,
            y + 0.7,
            f"gradients {4 * total / MIB:.0f} MiB\n{work / (4 * total):.1f} multiply-adds\nper image and\nbyte of gradient",
            10.5,
            ha="left",
        )
        for column, part in enumerate(found):
            x = left + column * wide
            size = 0.2
            for i in range(part.blocks):
                s.box(x + i * (size + 0.03), y + 1.05, size, 0.4, fill=lighter(dark, 0.75 - 0.13 * column))
            s.text(
                x,
                y + 0.82,
                part.name + (f": {part.blocks} blocks" if part.name.startswith("stage") else ""),
                10.5,
                ha="left",
                color=GREY,
            )
            for share, at, fill, hatch in ((part.parameters / total, 0.42, dark, ""), (part.work / work, 0.08, light, "//")):
                s.box(x, y + at, max(share * (wide - 0.62), 0.012), 0.24, fill=fill, hatch=hatch, edge="white", line=0.0)
                s.text(
                    x + share * (wide - 0.62) + 0.06,
                    y + at + 0.12,
                    f"{100 * share:.0f} %" if share > 0.005 else "<1 %",
                    10.5,
                    ha="left",
                )
    for x, fill, hatch, words in ((left, dark, "", "share of the parameters"), (left + 3.2, light, "//", "share of the work")):
        s.box(x, 0.3, 0.34, 0.2, fill=fill, hatch=hatch, edge="white")
        s.text(x + 0.45, 0.4, words, ha="left")
    return s.figure


def bytes_of(*, rank: int, progress: Any, model: str, batches: list[int]) -> list[tuple[int, int]]:
    return [bytes_for(model, batch) for batch in batches]


def bytes_for(model_name: str, batch: int) -> tuple[int, int]:
    """Bytes of the parameters, and of what forward keeps for backward (each storage once, parameters left out), in fp32."""
    import torch

    from labkit.models import build_model

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


@drawn
def memory_over_batch() -> Figure:
    """Memory of ResNet-18 over the batch: parameters, gradients and momentum stay, activations grow with every image;
    dots are the published peaks."""
    figure = Figure(figsize=(12, 5.6), layout="constrained")
    axes = figure.add_subplot()
    table = {row["experiment"]: row["max_gpu_mem_mb"] for row in params.published()}
    batches = [64, 128, 256, 512]
    computed = in_a_rank("labkit.drawings_models:bytes_of", model="resnet18", batches=batches)
    fixed = ("parameters", "#2f6ea5", ""), ("gradients", "#a6cde8", "//"), ("momentum", "#3d7d4f", "..")
    for x, (batch, (weights, activations)) in enumerate(zip(batches, computed, strict=True)):
        low = 0.0
        for name, colour, hatch in (*fixed, ("activations kept for backward", "#f0a34a", "")):
            high = (activations if name.startswith("activations") else weights) / MIB
            axes.bar(x, high, bottom=low, width=0.6, color=colour, hatch=hatch, edgecolor="white", label=name if x == 0 else None)
            low += high
        axes.annotate(f"{low:,.0f}", (x, low), (-6, 5), textcoords="offset points", ha="center", fontsize=12)
        published = table.get(f"single_gpu_resnet18_bs{batch}_cacheFalse_ampFalse")
        if published:
            (dot,) = axes.plot(x + 0.37, published, "o", markersize=10, color="white", markeredgecolor=LINE, markeredgewidth=1.8)
            dot.set_label("published peak (CUDA)" if batch == 128 else "_")
            axes.annotate(
                f"{published:,.0f}", (x + 0.37, published), (9, 0), textcoords="offset points", va="center", fontsize=11
            )
    axes.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches], fontsize=12)
    axes.set_ylabel("MiB")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.margins(y=0.12)
    axes.legend(frameon=False, fontsize=11, loc="upper left", reverse=True)
    axes.set_title("Memory of one device over the batch: ResNet-18, 32×32 images, fp32, SGD with momentum\n"
                   "Bars are computed from the layers' shapes, not measured", fontsize=12)  # fmt: skip
    return figure
