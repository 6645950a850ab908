"""Tables made of the published one, for the notebook that reads it. The arithmetic is in `published.py`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labkit.results.published import (
    AXES,
    EPOCHS,
    IMAGES,
    LOW,
    USUAL,
    at,
    axes_of,
    expected_mib,
    kind_of_run,
    least_and_most,
    lines,
    memory_of,
    of_kind,
)


@dataclass(frozen=True)
class Reading:
    """A table made of the published one: its lines, {key: heading} in the order of the columns, and a note."""

    lines: list[dict[str, Any]]
    headings: dict[str, str]
    note: str = ""


def aligned(value: float, digits: int) -> str:
    """A number with this many decimals, filled up at the left with spaces as wide as a digit: the cells of a column are aligned."""
    return f"{value:>7,.{digits}f}".replace(" ", "\u2007")


def whole() -> Reading:
    """The published table, with the digits that it was published with."""
    digits = {"best_acc_pct": 2, "images_per_s": 1, "max_mem_mib": 0, "total_time_s": 1}
    found = [
        {"row": line.name, "batch": line.batch} | {key: aligned(getattr(line, key), n) for key, n in digits.items()}
        for line in lines().values()
    ]
    headings = {"row": "row", "batch": "batch", "best_acc_pct": "accuracy (%)", "images_per_s": "images/s"}
    return Reading(found, headings | {"max_mem_mib": "memory (MB)", "total_time_s": "time (s)"})


def batches() -> Reading:
    """What the batch column counts, for rows with two devices."""
    shown = [line for line in lines().values() if line.spec.world_size > 1 and line.spec.strategy != "model_parallel"]
    found = []
    for line in sorted(shown, key=lambda line: line.spec.strategy):
        of_all = line.spec.batch_per_rank * line.spec.world_size
        counts = {line.spec.batch_per_rank: "one device", of_all: "all devices"}.get(line.batch, "neither")
        found.append({"row": line.name, "one": line.spec.batch_per_rank, "all": of_all, "batch": line.batch, "counts": counts})
    return Reading(
        found,
        {"row": "row", "one": "images per device", "all": "of both devices", "batch": "batch column", "counts": "so it counts"},
        "For dp, the name has the images of both devices. Model parallel is not here: each of its devices sees all images.",
    )


def products() -> Reading:
    """images/s × time of the rows with one process, over IMAGES."""
    shown = [line for line in lines().values() if not kind_of_run(line).startswith("two")]
    found = [
        {"row": line.name, "rate": line.images_per_s, "s": line.total_time_s}
        | {"product": round(line.images_per_s * line.total_time_s / IMAGES, 2)}
        for line in shown
    ]
    return Reading(found, {"row": "row", "rate": "images/s", "s": "time (s)", "product": "images/s × time / 50,000"})


def outside() -> Reading:
    """Seconds of an epoch outside training, least and most for each kind of run."""
    found = []
    for kind in sorted({kind_of_run(line) for line in lines().values()}, key=lambda kind: least_and_most(kind)[0]):
        rates = [line.images_per_s for line in of_kind(kind)]
        least, most = least_and_most(kind)
        found.append({"kind": kind, "rows": len(rates), "least": round(least, 2), "most": round(most, 2)}
                     | {"rate": f"{min(rates):,.0f} to {max(rates):,.0f}" if len(rates) > 1 else f"{rates[0]:,.0f}"})  # fmt: skip
    return Reading(
        found,
        {"kind": "kind of run", "rows": "rows", "rate": "images/s", "least": "least (s)", "most": "most (s)"},
        "Seconds of an epoch outside training: (time − 50 × 50,000 / images/s) / 50.",
    )


def pairs() -> Reading:
    """Two pairs of rows whose speeds and times disagree, with the seconds of the whole run inside and outside training."""
    names = ("single_gpu_resnet18_bs256_cacheTrue_ampFalse", "ddp_nccl_resnet18_bs128x2_cacheTrue_ampTrue",
             "ddp_nccl_resnet50_bs256x2_cacheFalse_ampFalse", "collective_gloo_resnet18_bs128x2")  # fmt: skip
    found = [
        {"row": name, "rate": f"{line.images_per_s:,.1f}", "s": line.total_time_s, "train": EPOCHS * line.train_s}
        | {"outside": EPOCHS * line.outside_s}
        for name, line in ((name, lines()[name]) for name in names)
    ]
    return Reading(
        found, {"row": "row", "rate": "images/s", "s": "time (s)", "train": "training (s)", "outside": "outside training (s)"}
    )


def losses() -> Reading:
    """From twice the speed of one GPU to DDP without a cache, in three steps."""
    one, small = (lines()[f"single_gpu_resnet18_bs{batch}_cacheFalse_ampFalse"].images_per_s for batch in (256, 128))
    cached, plain = (lines()[f"ddp_nccl_resnet18_bs128x2_cache{on}_ampFalse"].images_per_s for on in (True, False))
    steps = {
        "2 × one GPU at 256": 2 * one,
        "2 × one GPU at 128: the small batch": 2 * small,
        "DDP with cache: the exchange and the rest": cached,
        "DDP without cache: the input": plain,
    }
    found, before = [], 0.0
    for what, rate in steps.items():
        lost = round(100 * (1 - rate / before)) if before else None
        found.append({"what": what, "rate": rate, "lost": lost, "left": round(100 * rate / (2 * one))})
        before = rate
    return Reading(found, {"what": "step", "rate": "images/s", "lost": "lost in this step (%)", "left": "left of the ideal (%)"})


def memory() -> Reading:
    """Every row of ResNet-18 that the memory line describes, with its residual; the largest residual last."""
    found = []
    for line in lines().values():
        of_line, expected = memory_of(line), expected_mib(line)
        if of_line and expected:
            found.append({"row": line.name, "copies": of_line[0], "images": line.spec.batch_per_rank, "line": round(expected),
                          "column": round(line.max_mem_mib), "residual": round(line.max_mem_mib - expected, 1)})  # fmt: skip
    headings = {"row": "row", "copies": "copies of P", "images": "images per device", "line": "line (MiB)", "column": "column"}
    return Reading(sorted(found, key=lambda one: abs(one["residual"])), headings | {"residual": "residual (MiB)"})


def low_rows() -> Reading:
    """The rows at 66 to 67 percent, and what their names say."""
    found = [{"row": line.name, "acc": f"{line.best_acc_pct:.2f}"} | axes_of(line) for line in at(LOW)]
    return Reading(found, {"row": "row", "acc": "accuracy (%)"} | {axis: axis for axis in AXES})


def accuracies() -> Reading:
    """The usual accuracies of ResNet-18, by the images of one device in a step."""
    sizes = sorted({line.spec.batch_per_rank for line in at(USUAL)})
    found = []
    for size in sizes:
        shown = [line.best_acc_pct for line in at(USUAL) if line.spec.batch_per_rank == size]
        found.append({"size": size, "rows": len(shown), "least": f"{min(shown):.2f}", "most": f"{max(shown):.2f}"})
    headings = {"size": "images per device", "rows": "rows", "least": "least accuracy (%)", "most": "most accuracy (%)"}
    return Reading(found, headings, "Without the seven rows at 66 to 67 %, and the two at 56 %.")


TABLES: dict[str, Callable[[], Reading]] = {
    one.__name__: one for one in (whole, batches, products, outside, pairs, losses, memory, low_rows, accuracies)
}
