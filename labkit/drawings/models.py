"""Drawings of the networks, computed from labkit.engine.models."""

from matplotlib.figure import Figure

from labkit.drawings.computed import Part
from labkit.drawings.sheet import GREY, LINE, Sheet, drawn
from labkit.plots.colours import lighter
from labkit.processes.launch import in_a_rank
from labkit.rows import params

NETWORKS = ["resnet18", "resnet34", "resnet50"]
MIB = 2**20


@drawn
def three_networks() -> Figure:
    """The blocks of ResNet-18, 34 and 50, and where their parameters and their work are: most parameters are in the last stage, and
    the work is in all stages."""
    s = Sheet(13.2, 7.3, "Three networks: where the parameters are, and where the work is",
              "Computed for width 64, 32×32 images and 100 classes. Work: multiply-adds of one image's forward; backward does about twice as much.")  # fmt: skip
    dark, light = "#2f6ea5", "#f0a34a"
    wide, left = 1.62, 1.95
    computed = in_a_rank("labkit.drawings.computed:parts_of", models=NETWORKS)
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


@drawn
def memory_over_batch() -> Figure:
    """Memory of ResNet-18 over the batch: parameters, gradients and momentum stay the same, activations grow with every image; dots
    are the published peaks."""
    figure = Figure(figsize=(12, 5.6), layout="constrained")
    axes = figure.add_subplot()
    table = {row["experiment"]: row["max_gpu_mem_mb"] for row in params.published()}
    batches = [64, 128, 256, 512]
    computed = in_a_rank("labkit.drawings.computed:bytes_of", model="resnet18", batches=batches)
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
