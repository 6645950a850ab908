"""The published table, read by arithmetic: what follows from its figures and its names, and from nothing else.

Every function here takes its figures from params/published_results.csv. The table names neither its data set nor its epochs; both are
deduced here, and the two constants below hold them. Memory is in MiB (2**20 bytes): the column says "MB", and only MiB fit.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labkit.rows.params import published
from labkit.rows.spec import Spec

EPOCHS, IMAGES = 50, 50_000  # deduced: see `products` and `images_trained`
P_MIB = 4 * 11_220_132 / 2**20  # 42.8: ResNet-18 of full width for 100 classes, 4 bytes for each parameter
IMAGE_MIB = 4.57  # activations of an image in fp32: (2465 - 711) MiB / (512 - 128) images of the single rows
LOW, USUAL = (66.0, 68.0), (73.0, 75.0)  # accuracies of ResNet-18, percent; two rows more are at 56


@dataclass(frozen=True)
class Line:
    """A row of the published table: what its name says (`spec`), and its five columns. Accuracy is in percent."""

    name: str
    spec: Spec
    batch: int
    best_acc_pct: float
    images_per_s: float
    max_mem_mib: float
    total_time_s: float

    @property
    def train_s(self) -> float:
        """Seconds of training in an epoch of IMAGES images."""
        return IMAGES / self.images_per_s

    @property
    def outside_s(self) -> float:
        """Seconds of an epoch that are not training: the total time, less the training, over EPOCHS."""
        return self.total_time_s / EPOCHS - self.train_s

    @property
    def cache_said(self) -> str:
        """ "true" or "false", or "not said": a few names leave the cache out."""
        return self.spec.cache if "_cache" in self.name else "not said"


@dataclass(frozen=True)
class Reading:
    """A table made of the published one: its lines, {key: heading} in the order of the columns, and a note."""

    lines: list[dict[str, Any]]
    headings: dict[str, str]
    note: str = ""


@functools.cache
def lines() -> dict[str, Line]:
    """The rows of the published table by name, in its order (the fastest first)."""
    return {
        row["experiment"]: Line(
            row["experiment"],
            Spec.parse(row["experiment"]),
            int(row["batch_size"]),
            row["best_acc_pct"],
            row["avg_throughput_img_s"],
            row["max_gpu_mem_mb"],
            row["total_time_s"],
        )
        for row in published()
    }


def images_trained(fast: Line, slow: Line) -> float:
    """The images that both rows trained in all, if both spend the same seconds outside training: time = images / rate + seconds."""
    return (slow.total_time_s - fast.total_time_s) / (1 / slow.images_per_s - 1 / fast.images_per_s)


def kind_of_run(line: Line) -> str:
    """Which rows spend alike outside training: the group of a row in `outside`."""
    strategy, batch = line.spec.strategy, line.spec.batch_per_rank
    if strategy == "single":
        return "one GPU, batch 128" if batch == 128 else "one GPU, batch 256 or 512"
    if strategy in ("model_parallel", "data_parallel"):
        return {"model_parallel": "model parallel", "data_parallel": "DataParallel"}[strategy]
    if strategy == "ddp" and line.spec.backend == "gloo":
        return "two processes: DDP on gloo"
    return "two processes, with cache" if line.cache_said == "true" else "two processes, no cache named"


def memory_of(line: Line) -> tuple[float, float] | None:
    """(copies of P, MiB of activations for an image) that the memory line gives this row; None for a row that it does not describe.

    Weights, gradients and momentum are 3 P. DDP and the collectives keep one more: the buckets of their messages. A server's worker
    has no momentum. AMP keeps weights in 16 bits as well (half a P), and activations of half the size."""
    spec = line.spec
    copies = {"single": 3.0, "data_parallel": 3.0, "ddp": 4.0, "collective": 4.0, "parameter_server": 2.0}.get(spec.strategy)
    if copies is None or spec.model != "resnet18":
        return None
    return (copies + 0.5, IMAGE_MIB / 2) if spec.amp else (copies, IMAGE_MIB)


def expected_mib(line: Line) -> float | None:
    """The memory that the line gives a row, in MiB; None for a row that it does not describe."""
    of_line = memory_of(line)
    return of_line and of_line[0] * P_MIB + of_line[1] * line.spec.batch_per_rank


def at(level: tuple[float, float]) -> list[Line]:
    """The rows of ResNet-18 with accuracies between these two, the most accurate first."""
    shown = [line for line in lines().values() if line.spec.model == "resnet18" and level[0] <= line.best_acc_pct <= level[1]]
    return sorted(shown, key=lambda line: -line.best_acc_pct)


AXES: dict[str, Callable[[Line], str]] = {
    "strategy": lambda line: line.spec.strategy,
    "backend": lambda line: line.spec.backend if line.spec.backend != "auto" else "not said",
    "network": lambda line: line.spec.model,
    "images per device": lambda line: str(line.spec.batch_per_rank),
    "devices": lambda line: str(line.spec.world_size),
    "cache": lambda line: line.cache_said,
    "AMP": lambda line: str(line.spec.amp),
}


def axes_of(line: Line) -> dict[str, str]:
    """What a row's name says, by axis."""
    return {axis: of(line) for axis, of in AXES.items()}


# -- tables ---------------------------------------------------------------------------------------------------------------
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


def of_kind(kind: str) -> list[Line]:
    """The rows of a kind of run."""
    return [line for line in lines().values() if kind_of_run(line) == kind]


def least_and_most(kind: str) -> tuple[float, float]:
    """The least and the most seconds outside training of a kind of run."""
    seconds = [line.outside_s for line in of_kind(kind)]
    return min(seconds), max(seconds)


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
    one.__name__: one for one in (batches, products, outside, pairs, losses, memory, low_rows, accuracies)
}
