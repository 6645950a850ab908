"""What the rest of the lab must know of a strategy, and its file does not say. A new strategy file needs no entry here.

Every file in `labkit/strategies/` is a strategy, named as the file. One that is not in KINDS gets the default `Kind()`: ranks that
each train their own part of every step's images, and exchange something over NCCL or gloo. So does every file in the folder of
strategies of one's own, which is no part of the package: an edit there counts for the rows of that strategy alone.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from labkit.system.places import ROOT, place

STRATEGIES = sorted(path.stem for path in (Path(__file__).parents[1] / "strategies").glob("[a-z]*.py"))
MAX_PROCESSES = 64


@dataclass(frozen=True)
class Kind:
    """The facts of one strategy.

    stem                the published form of a row's name; `rows/names.py` reads and writes it
    one_process         the launcher starts one process; its replicas, if any, are threads, and it sends no messages
    whole_batch         every rank is given all images of a step, so `batch_per_rank` is the batch of a step
    server              there is one process more than ranks: it trains no images, and owns the weights
    backends            libraries that can send its messages
    least               the smallest number of ranks (replicas, workers)
    gloo_carries_cuda   it can run on gloo with tensors on CUDA
    published_on_nccl   its published rows ran on NCCL, although their names do not say so
    exact               with norm=group it ends at the weights of one process that trains the whole batch
    settings            fields of Spec that this strategy uses, and most others do not
    colour, marker      how plots show it"""

    stem: str = "{strategy}_{backend}_{model}_bs{b}x{n}_cache{cache}_amp{amp}"
    one_process: bool = False
    whole_batch: bool = False
    server: bool = False
    backends: tuple[str, ...] = ("gloo", "nccl")
    least: int = 1
    gloo_carries_cuda: bool = True
    published_on_nccl: bool = False
    exact: bool = True
    settings: tuple[str, ...] = ()
    colour: str = "#8c8c8c"
    marker: str = "h"

    @property
    def splits_batch(self) -> bool:
        """Does each rank train its own part of a step's images? Then ranks can also compute without any exchange."""
        return not (self.one_process or self.whole_batch)


KINDS = {
    "single": Kind(
        stem="single_gpu_{model}_bs{batch}_cache{cache}_amp{amp}",
        one_process=True,
        whole_batch=True,
        backends=(),
        colour="#262626",
        marker="o",
    ),
    "ddp": Kind(
        stem="ddp_{backend}_{model}_bs{b}x{n}_cache{cache}_amp{amp}",
        settings=("bucket_mb", "gradient_as_bucket_view", "static_graph"),
        colour="#065194",
        marker="s",
    ),
    "data_parallel": Kind(
        stem="dp_{model}_bs{batch}_ngpu{n}_cache{cache}_amp{amp}", one_process=True, backends=(), colour="#4900b6", marker="D"
    ),
    "model_parallel": Kind(
        stem="model_parallel_{model}_bs{batch}_cache{cache}",
        whole_batch=True,
        least=2,
        settings=("micro_batches", "schedule"),
        colour="#b03600",
        marker="^",
    ),
    "fsdp": Kind(
        stem="fsdp_{sharding}_{model}_bs{b}x{n}_amp{amp}",
        gloo_carries_cuda=False,
        published_on_nccl=True,
        settings=("sharding",),
        colour="#439ccd",
        marker="P",
    ),
    "collective": Kind(
        stem="collective_{backend}_{model}_bs{b}x{n}", settings=("form", "bucket_mb"), colour="#1e824f", marker="v"
    ),
    "parameter_server": Kind(
        stem="{server}_{model}_bs{b}_workers{n}",
        server=True,
        backends=("gloo",),
        exact=False,
        settings=("server_device", "consistency", "staleness_bound"),
        colour="#a97a00",
        marker="X",
    ),
}
SPARE_LOOKS = (("#8c8c8c", "h"), ("#d81b60", "p"), ("#00796b", "d"), ("#a0764f", "<"))  # of strategies that are not in KINDS


def own_folder() -> Path:
    """The folder of strategies of one's own: $LABKIT_STRATEGIES, or my_strategies/ beside the notebooks. It may not exist yet."""
    return place("LABKIT_STRATEGIES", place("LABKIT_NOTEBOOKS", Path(ROOT) / "notebooks") / "my_strategies")


def own_strategies() -> dict[str, Path]:
    """The strategies of one's own, as they are now: name -> file. A file that has the name of one of the lab's is not among them."""
    files = {path.stem: path for path in sorted(own_folder().glob("[a-z]*.py"))}
    return {name: path for name, path in files.items() if name not in STRATEGIES and name.isidentifier()}


def strategies() -> list[str]:
    """The names of all strategies: the lab's, then those of one's own."""
    return [*STRATEGIES, *own_strategies()]


def kind_of(strategy: str) -> Kind:
    """The facts of a strategy. One that is not in KINDS gets the default, with the next of SPARE_LOOKS."""
    if strategy in KINDS:
        return KINDS[strategy]
    others = [name for name in strategies() if name not in KINDS]
    number = others.index(strategy) if strategy in others else 0
    colour, marker = SPARE_LOOKS[number % len(SPARE_LOOKS)]
    return replace(Kind(), colour=colour, marker=marker)


def users_of(setting: str) -> list[str]:
    """The strategies that use this field of Spec, if only some do; an empty list for a field that all use."""
    return [name for name, kind in KINDS.items() if setting in kind.settings]
