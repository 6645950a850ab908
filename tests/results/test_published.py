"""What arithmetic tells of the published table, and the numbers that notebook 11 writes into its text."""

from __future__ import annotations

import itertools
import json
import math
import re

import pytest

from labkit.engine.models import build_model
from labkit.notebook.cells import Grid, Picture
from labkit.notebook.figures import PUBLISHED_FIGURES, reading
from labkit.plots.published import PICTURES
from labkit.results import published as table
from labkit.rows.fields import SpecError
from labkit.rows.params import ROOT
from tests.drawings.test_gallery import legible
from tests.helpers.answers import solutions

LINES = table.lines()
ONE, TWO = "single_gpu_resnet18_bs{}_cache{}_amp{}", "ddp_nccl_resnet18_bs{}x2_cache{}_amp{}"
SINGLE, SMALL, CACHED = (LINES[ONE.format(*on)] for on in ((256, False, False), (128, False, False), (256, True, False)))
DDP, CACHED_DDP, FASTEST_DDP = (LINES[TWO.format(128, *on)] for on in ((False, False), (True, False), (True, True)))
FASTEST = LINES[ONE.format(256, True, True)]
NOTEBOOK = ROOT / "notebooks/11_reading_the_table.ipynb"


def text_of_notebook() -> str:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return re.sub(r"\s+", " ", "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"))


def products() -> list[float]:
    return [line["product"] for line in table.products().lines]


def epochs_of_pairs() -> list[float]:
    """Of all pairs of the six fastest rows with one process whose speeds differ by more than 10 percent."""
    rows = [LINES[line["row"]] for line in table.products().lines[:6]]
    pairs = [(a, b) for a, b in itertools.combinations(rows, 2) if a.images_per_s > 1.1 * b.images_per_s]
    return [table.images_trained(a, b) / table.IMAGES for a, b in pairs]


def residuals() -> list[float]:
    return sorted(abs(line["residual"]) for line in table.memory().lines)


def accuracies(images_per_device: int) -> list[float]:
    return [line.best_acc_pct for line in table.at(table.USUAL) if line.spec.batch_per_rank == images_per_device]


def mean_of_cosine(after: float) -> float:
    """The mean of (1 + cos(πx)) / 2 over x from `after` to 1."""
    steps = [after + (1 - after) * (i + 0.5) / 1000 for i in range(1000)]
    return sum((1 + math.cos(math.pi * x)) / 2 for x in steps) / 1000


PAIRS = [line.best_acc_pct - SINGLE.best_acc_pct for line in table.at(table.USUAL)
         if line.spec.world_size == 2 and line.spec.batch_per_rank == 128]  # fmt: skip
LOW = [line.best_acc_pct for line in table.at(table.LOW)]
TWO_PROCESSES = table.of_kind("two processes, no cache named")
FIXED, PER_IMAGE = solutions.memory_line(128, SMALL.max_mem_mib, 512, LINES[ONE.format(512, False, False)].max_mem_mib)
RATES = [SINGLE.images_per_s, SMALL.images_per_s, CACHED_DDP.images_per_s, DDP.images_per_s]
LOSSES = solutions.losses(*RATES)
MODEL_PARALLEL = LINES["model_parallel_resnet18_bs256_cacheFalse"]
GRAD, FULL = (LINES[f"fsdp_{what}_resnet18_bs128x2_ampFalse"] for what in ("grad", "full"))
R50, GLOO = LINES["ddp_nccl_resnet50_bs256x2_cacheFalse_ampFalse"], LINES["collective_gloo_resnet18_bs128x2"]

SENTENCES = [
    f"its {len(LINES)} rows",
    f"{min(products()):.1f} to {max(products()[2:6]):.1f}, then {products()[1]:.1f} and {products()[0]:.1f}",
    f"give {table.images_trained(FASTEST, CACHED) / 1e6:.2f} million images, which is "
    f"{table.images_trained(FASTEST, CACHED) / table.IMAGES:.1f} × 50,000",
    f"more than 10 %: {min(epochs_of_pairs()):.1f} to {max(epochs_of_pairs()):.1f}",
    f"train {min(line.images_per_s for line in TWO_PROCESSES):,.0f} to {max(line.images_per_s for line in TWO_PROCESSES) - 0.5:,.0f} images/s",
    f"spend {min(line.outside_s for line in TWO_PROCESSES):.1f} to {max(line.outside_s for line in TWO_PROCESSES):.1f} s",
    f"DDP on gloo spends {table.least_and_most('two processes: DDP on gloo')[0]:.1f} s",
    f"with a cache spend {CACHED_DDP.outside_s:.1f} to {FASTEST_DDP.outside_s:.1f} s",
    f"one process spends {MODEL_PARALLEL.outside_s:.1f} to {LINES[ONE.format(256, False, True)].outside_s:.1f} s",
    f"Model parallel spends {MODEL_PARALLEL.outside_s:.2f} s",
    f"10,000 / (3 × 4,950) = {10_000 / 3 / SINGLE.images_per_s:.2f} s. One GPU has {SINGLE.outside_s:.2f} s",
    f"50,000 images would take {50_000 / 3 / SINGLE.images_per_s:.1f} s",
    f"{sum(round(100 * line.best_acc_pct) % 2 for line in LINES.values())} of the {len(LINES)} accuracies have an odd last digit",
    f"removes about {DDP.outside_s - CACHED_DDP.outside_s:.0f} of the {DDP.outside_s:.0f} seconds",
    f"trains {CACHED.images_per_s:,.0f} and {FASTEST_DDP.images_per_s:,.0f} images/s. One ends after {CACHED.total_time_s:.0f} s and the other "
    f"after {FASTEST_DDP.total_time_s:.0f} s",
    f"ends *later*, by {R50.total_time_s - GLOO.total_time_s:.0f} s",
    f"must train {solutions.rate_needed(table.IMAGES, CACHED.images_per_s, CACHED.outside_s, FASTEST_DDP.outside_s):,.0f} images/s",
    f"spends {DDP.outside_s:.2f} s of each epoch outside training, and one GPU needs {SINGLE.total_time_s / table.EPOCHS:.2f} s",
    f"The ratio is {DDP.images_per_s / SINGLE.images_per_s:.2f}",
    f"**2 × {SINGLE.images_per_s:,.0f} = {2 * SINGLE.images_per_s:,.0f}**",
    f"2 × {SMALL.images_per_s:,.0f} = {2 * SMALL.images_per_s:,.0f}",
    f"The cached row, {CACHED_DDP.images_per_s:,.0f}",
    f"without a cache reaches {50 * DDP.images_per_s / SINGLE.images_per_s:.0f} % of the ideal",
    f"{' × '.join(f'{1 - lost:.2f}' for lost in LOSSES)} = {math.prod(1 - lost for lost in LOSSES):.2f}",
    f"The small batch loses {100 * LOSSES[0]:.0f} %, the input loses {100 * LOSSES[2]:.0f} %. The step between loses {100 * LOSSES[1]:.0f} %",
    f"ends at {CACHED_DDP.best_acc_pct:.1f} % accuracy, not {DDP.best_acc_pct:.1f} %",
    f"An image takes {PER_IMAGE:.2f} MiB, and {FIXED:.1f} MiB do not",
    f"P = {table.P_MIB:.1f} MiB. So the fixed part is {FIXED / table.P_MIB:.2f} P",
    f"3 P would be {3 * table.P_MIB * 2**20 / 1e6:.1f}",
    f"753 − 711 = {DDP.max_mem_mib - SMALL.max_mem_mib:.0f}, and 1,338 − 1,294 = "
    f"{LINES[TWO.format(256, False, False)].max_mem_mib - SINGLE.max_mem_mib:.0f}",
    f"Activations take half: {table.IMAGE_MIB / 2 + 1e-9:.2f} MiB",
    f"{sum(size < 7 for size in residuals())} of {len(residuals())} rows are within 7 MiB",
    f"64 images uses {residuals()[-1]:.0f} MiB more. Cached DDP in fp32 uses {residuals()[-2]:.0f} MiB more",
    f"({FASTEST_DDP.max_mem_mib:.0f} and {LINES[TWO.format(128, False, True)].max_mem_mib:.0f})",
    f"Model parallel has {MODEL_PARALLEL.max_mem_mib:,.0f}. One GPU needs {SINGLE.max_mem_mib:,.0f}",
    f"its mean is {100 * mean_of_cosine(0.9):.1f} % of the highest rate",
    f"At 74 % this is {solutions.chance_points(74.0, 10_000):.1f} points",
    f"differ by {max(LOW) - min(LOW):.1f} points among themselves",
    f"2 × 128 images end {min(PAIRS):.2f} to {max(PAIRS):.2f} points above",
    f"in 1 of {math.comb(10, 3)} orders",
    f"trains {GRAD.images_per_s:,.0f} images/s with `grad` and {FULL.images_per_s:,.0f} with `full`: a difference of "
    f"{100 * (GRAD.images_per_s / FULL.images_per_s - 1):.1f} %",
]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_number_in_the_text_is_computed_from_the_table(sentence: str) -> None:
    assert sentence in text_of_notebook()


def test_what_the_text_counts() -> None:
    assert len(LOW) == 7 and max(LOW) < 67.5 and min(LOW) > 66
    assert (
        len(PAIRS) == 6
        and len(accuracies(128)) == 7
        and len(accuracies(256)) == 3
        and min(accuracies(128)) > max(accuracies(256))
    )
    assert len(TWO_PROCESSES) == 12
    assert 5.5 < (SINGLE.best_acc_pct - sum(LOW) / 7) / solutions.chance_points(74.0, 10_000) < 6.5, "six times as large"
    assert len(table.at((0.0, 60.0))) == 2 and {line.spec.strategy for line in table.at((0.0, 60.0))} == {"single"}
    assert max(LOW) - min(LOW) < solutions.chance_points(67.0, 10_000)
    assert max(PAIRS) < solutions.chance_points(74.0, 10_000), "each single difference may be chance"
    counts = [line["counts"] for line in table.batches().lines]
    assert counts.count("one device") == 2 and counts.count("all devices") == len(counts) - 2


def test_no_axis_and_only_one_pair_of_axes_separates_the_low_rows() -> None:
    low, others = (
        [table.axes_of(line) for line in LINES.values() if (line in table.at(table.LOW)) is of_low] for of_low in (True, False)
    )
    assert solutions.axes_that_explain(low, others) == []
    separating = []
    for pair in itertools.combinations(table.AXES, 2):
        ours, theirs = ({tuple(row[axis] for axis in pair) for row in rows} for rows in (low, others))
        if not ours & theirs:
            separating.append((pair, len(ours)))
    assert separating == [(("strategy", "cache"), 4)]


def test_copies_of_p_are_of_the_labs_network() -> None:
    parameters = sum(one.numel() for one in build_model("resnet18", 64, 3, 100).parameters())
    assert 4 * parameters / 2**20 == table.P_MIB
    assert pytest.approx(table.IMAGE_MIB, abs=0.005) == PER_IMAGE


def test_every_row_is_in_one_kind_of_run_and_its_epochs_add_up() -> None:
    assert sum(line["rows"] for line in table.outside().lines) == len(LINES)
    for line in LINES.values():
        assert table.EPOCHS * (line.train_s + line.outside_s) == pytest.approx(line.total_time_s)


@pytest.mark.parametrize("name", [*table.TABLES, *PICTURES])
def test_every_reading_is_shown_by_its_name(name: str) -> None:
    shown = reading(name)
    if isinstance(shown, Grid):
        assert shown.lines and all(set(shown.headings) <= set(line) for line in shown.lines)
    else:
        assert isinstance(shown, Picture) and PICTURES.keys() == PUBLISHED_FIGURES.keys()
    assert f'lab.reading("{name}")' in NOTEBOOK.read_text(encoding="utf-8").replace('\\"', '"')


def test_an_unknown_reading_is_refused() -> None:
    with pytest.raises(SpecError, match=r"reading 'outsid'.*did you mean 'outside'"):
        reading("outsid")


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_a_figure_is_legible_and_has_every_row(draw) -> None:
    figure = draw()
    legible(figure)
    points = [
        line
        for axes in figure.axes
        for line in axes.lines
        if line.get_marker() not in ("None", "", None) and len(line.get_xdata())
    ]
    assert len(points) == {"outside_figure": len(LINES), "memory_figure": 2 * len(table.memory().lines)}[draw.__name__]
