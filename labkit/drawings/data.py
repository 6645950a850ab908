"""Drawings of data and of who holds it: the three caches, batches over ranks, tensors over ranks."""

from matplotlib.figure import Figure

from labkit.drawings.sheet import GREY, LINE, MESSAGE, Sheet, drawn
from labkit.plots.colours import lighter
from labkit.processes.launch import in_a_rank
from labkit.rows.catalog import DATASETS
from labkit.rows.kinds import KINDS

ONCE, EVERY = "#ffffff", "#f7c591"


@drawn
def three_caches() -> Figure:
    """What is done once and what in every epoch: without a cache everything is done in every epoch, with a cache only crop and flip,
    and with the frozen cache nothing, so that every epoch trains the same picture."""
    s = Sheet(13, 6.6, "Three caches: what is done once, and what again in every epoch",
              "On the right one picture in three epochs, with the crops and flips that the lab draws for it.")  # fmt: skip
    s.box(0.3, 5.33, 0.34, 0.2, fill=ONCE)
    s.text(0.72, 5.43, "once", ha="left")
    s.box(1.5, 5.33, 0.34, 0.2, fill=EVERY)
    s.text(1.92, 5.43, "in every epoch", ha="left")
    for epoch in range(3):
        s.text(9.85 + epoch * 1.1, 5.43, f"epoch {epoch + 1}", 11)
    crop, kept = "crop,\nflip", "cache"
    rows = {"false": (["file", "decode", crop, "batch"], 0, "all of it again, image by image"),
            "true": (["file", "decode", kept, crop, "batch"], 3, "decoded images are kept, fresh crops and flips of whole batches"),
            "frozen": (["file", "decode", crop, kept, "batch"], 4, "a fault: the crops and flips of the first epoch are kept, too")}  # fmt: skip
    seen = in_a_rank("labkit.drawings.computed:views", caches=list(rows), epochs=3)
    for (cache, (boxes, once, about)), y in zip(rows.items(), (3.95, 2.3, 0.65), strict=True):
        s.text(0.3, y + 0.98, f"cache {cache}", 12, ha="left", weight="bold")
        s.text(2.0, y + 0.98, about, 11, ha="left", color=GREY)
        for i, words in enumerate(boxes):
            x = 0.3 + i * 1.75
            bold = words == kept
            s.box(
                x, y, 1.3, 0.7, words, ONCE if i < once else EVERY, line=2.6 if bold else 1.0, weight="bold" if bold else "normal"
            )
            if i:
                s.arrow((x - 0.45, y + 0.35), (x, y + 0.35))
        for epoch, picture in enumerate(seen[cache]):
            inset = s.figure.add_axes(
                ((9.4 + epoch * 1.1) / s.wide, (y - 0.1) / s.high, 0.9 / s.wide, 0.9 / s.high), xticks=[], yticks=[]
            )
            inset.spines[:].set_visible(True)
            inset.imshow(picture, cmap="gray_r", interpolation="nearest")
    return s.figure


@drawn
def batches_over_ranks() -> Figure:
    """One epoch on two ranks with 64, 128 and 256 images per rank: a larger batch means fewer steps, and fewer all-reduces."""
    images, ranks = DATASETS["digits"].train_images, 2
    s = Sheet(13, 5.9, "One epoch on two ranks: batch per rank and steps",
              f"Computed for the {images:,} training images of digits. Lengths are images per rank, not time.")  # fmt: skip
    unit, tick, left, high = 0.0112, 0.1, 1.1, 0.36
    blue = KINDS["ddp"].colour
    fills = lighter(blue, 0.7), lighter(blue, 0.1)
    for b, y in zip((64, 128, 256), (4.05, 2.65, 1.25), strict=True):
        steps, rest = divmod(images, b * ranks)
        s.text(left, y + 0.72, f"{b} per rank: {steps} steps = {steps} all-reduces = {steps} updates; {rest} images do not fill a step and are left out",
               11.5, ha="left")  # fmt: skip
        for rank in range(ranks):
            s.text(left - 0.12, y + 0.22 - rank * 0.36, f"rank {rank}", ha="right")
        x = left
        for step in range(steps):
            for rank in range(ranks):
                s.box(x, y + 0.04 - rank * high, b * unit, high, str(step + 1), fills[rank], size=10.5)
            x += b * unit
            s.work("exchange", x, y + 0.04 - high, tick, 2 * high)
            x += tick
        s.box(x, y + 0.04 - high, rest / ranks * unit, 2 * high, fill="white", hatch="..", edge="#888888", style=(0, (3, 2)))
    for rank, fill in enumerate(fills):
        s.box(left + 2.3 * rank, 0.32, 0.34, 0.2, fill=fill)
        s.text(left + 2.3 * rank + 0.42, 0.42, f"images of rank {rank}", 10.5, ha="left")
    s.key(left + 4.6, 0.42, {"exchange": "all-reduce"})
    s.box(left + 6.9, 0.32, 0.34, 0.2, hatch="..", edge="#888888", style=(0, (3, 2)))
    s.text(left + 7.32, 0.42, "left out in this epoch", 10.5, ha="left")
    return s.figure


@drawn
def who_holds_what() -> Figure:
    """Which part of parameters, gradients, optimizer state and activations each of two ranks holds: one device holds all; in DDP a
    rank holds a copy, and half the activations; in FSDP a shard; in model parallel half the layers."""
    s = Sheet(13, 7.9, "Who holds what: gradients after backward, activations after forward",
              "Each frame is the whole: layers from left to right; down, a layer's numbers, or for activations the batch. Filled: held by this rank.")  # fmt: skip
    whole, left, right, top, bottom = (0, 0, 1, 1), (0, 0, 0.5, 1), (0.5, 0, 0.5, 1), (0, 0.5, 1, 0.5), (0, 0, 1, 0.5)
    rows: list[
        tuple[str, str, list, str]
    ] = [  # strategy, name, for each rank its part of parameters, gradients, optimizer state, activations; what moves
        ("single", "single", [(whole,) * 4], "nothing"),
        ("ddp", "DDP", [(whole, whole, whole, top), (whole, whole, whole, bottom)], "gradients: all-reduce"),
        (
            "fsdp",
            "FSDP grad",
            [(top,) * 4, (bottom,) * 4],
            "parameters: one gather a step,\nwhole until backward is over;\ngradients: reduce-scatter",
        ),
        (
            "fsdp",
            "FSDP full",
            [(top,) * 4, (bottom,) * 4],
            "parameters: gathered for each block\nin forward and again in backward;\ngradients: reduce-scatter",
        ),
        (
            "model_parallel",
            "model parallel",
            [(left,) * 4, (right,) * 4],
            "activations forward, and their\ngradients backward, at the cut",
        ),
    ]
    wide, high = 0.88, 0.62
    for column, words in enumerate(("parameters", "gradients", "optimizer state", "activations")):
        s.text(1.75 + column * 2.05 + 0.97, 6.75, words, 11.5, weight="bold")
    s.text(9.95, 6.75, "what is exchanged in a step", 11.5, ha="left", weight="bold")
    for line, (strategy, name, ranks, moves) in enumerate(rows):
        y = 5.75 - line * 1.12
        s.text(0.2, y + high / 2, name, 12, ha="left", weight="bold")
        for rank, parts in enumerate(ranks):
            for column, (px, py, pw, ph) in enumerate(parts):
                x = 1.75 + column * 2.05 + rank * (wide + 0.1)
                s.box(x + px * wide, y + py * high, pw * wide, ph * high, fill=KINDS[strategy].colour, line=0)
                s.box(x, y, wide, high, fill="none")
                if strategy == "fsdp" and column == 0:
                    s.box(x + 0.05, y + 0.05, wide - 0.1, high - 0.1, fill="none", edge=MESSAGE, line=1.6, style=(0, (2, 2)))
                s.text(x + wide / 2, y - 0.14, f"rank {rank}", 10, color=GREY)
        s.text(9.95, y + high / 2, moves, 10.5, ha="left", color=LINE)
    s.box(0.3, 0.3, 0.5, 0.24, fill="none", edge=MESSAGE, line=1.6, style=(0, (2, 2)))
    s.text(0.95, 0.42, "whole for a while: FSDP gathers parameters before it computes with them (ZeRO: Rajbhandari et al., 2020)", 10.5, ha="left",
           color=MESSAGE)  # fmt: skip
    return s.figure
