"""The published table, read by arithmetic: what follows from its figures and its names, and from nothing else.

Every function here takes its figures from params/published_results.csv. The table names neither its data set nor its epochs; both are
deduced here, and the two constants below hold them. Memory is in MiB (2**20 bytes): the column says "MB", and only MiB fit.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from labkit.rows.params import published
from labkit.rows.spec import Spec

EPOCHS, IMAGES = 50, 50_000  # deduced: see `images_trained`, and `products` in readings.py
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
    """Which rows spend alike outside training: the group of a row in readings.py's `outside`."""
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


def of_kind(kind: str) -> list[Line]:
    """The rows of a kind of run."""
    return [line for line in lines().values() if kind_of_run(line) == kind]


def least_and_most(kind: str) -> tuple[float, float]:
    """The least and the most seconds outside training of a kind of run."""
    seconds = [line.outside_s for line in of_kind(kind)]
    return min(seconds), max(seconds)
