"""Drawings say what they compute, are legible, and compute what the code does."""

import itertools
import queue
import subprocess
import sys
import threading
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

import labkit
from labkit import strategy
from labkit.checks.schedules import drive, gpipe
from labkit.drawings import gallery as drawings
from labkit.drawings.computed import bytes_for, parts, views
from labkit.drawings.messages import ring_steps
from labkit.drawings.numbers import FORMATS
from labkit.drawings.steps import one_f_one_b, pushes
from labkit.engine.models import build_model
from labkit.plots.style import WORK
from labkit.rows.fields import SpecError
from labkit.rows.params import published

ONE_AT_LEAST_FOR_EACH_GROUP = [
    "step_on_one_and_two",
    "ring",
    "backend_paths",
    "who_holds_what",
    "pipelines",
    "three_caches",
    "number_formats",
    "amp_step",
    "batches_over_ranks",
    "three_networks",
    "factors",
    "memory_over_batch",
    "server_and_ring",
    "staleness",
]


def words_of(figure):
    """All texts that are visible in a figure, with their boxes in pixels; drawn as it is, with every warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    axis = [one for axes in figure.axes for one in (axes.xaxis, axes.yaxis)]
    beyond = {  # ticks outside of the axes have labels too, which are not drawn
        label
        for one in axis
        for tick in [*one.majorTicks, *one.minorTicks]
        for label in (tick.label1, tick.label2)
        if not min(one.get_view_interval()) - 1e-9 <= tick.get_loc() <= max(one.get_view_interval()) + 1e-9
    }
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip() and text not in beyond]
    return [(text, text.get_window_extent(canvas.get_renderer())) for text in texts]


def legible(figure):
    """Nothing is too small, cut off at the edge, or written over something else. Returns the texts."""
    words = words_of(figure)
    wide, high = figure.bbox.width, figure.bbox.height
    for text, box in words:
        assert text.get_fontsize() * 12 / max(figure.get_figwidth(), 12) > 9.99, f"too small: {text.get_text()!r}"
        assert box.x0 > -1 and box.y0 > -1 and box.x1 < wide + 1 and box.y1 < high + 1, f"cut off: {text.get_text()!r}"
    for (one, a), (two, b) in itertools.combinations(words, 2):
        across, up = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across < 2 or up < 2, f"one over the other: {one.get_text()!r}, {two.get_text()!r}"
    return [text.get_text() for text, _ in words]


def test_there_is_one_for_each_group():
    assert set(ONE_AT_LEAST_FOR_EACH_GROUP) <= set(drawings.names())


@pytest.mark.parametrize("name", drawings.names())
def test_a_drawing_is_legible_and_told_in_words(name):
    legible(drawings.drawing(name))
    assert len(drawings.alt(name)) > 40 and drawings.alt(name).endswith(".") and "\n" not in drawings.alt(name)


def test_legible_can_fail():
    def with_texts(*spots, size=11):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(12, 4))
        for x, y in spots:
            figure.text(x, y, "some words", fontsize=size)
        return figure

    legible(with_texts((0.1, 0.1), (0.1, 0.3)))
    for bad in (with_texts((0.97, 0.1)), with_texts((0.1, 0.1), (0.12, 0.11)), with_texts((0.1, 0.1), size=7)):
        with pytest.raises(AssertionError):
            legible(bad)


def test_an_unknown_drawing():
    with pytest.raises(SpecError, match="drawing 'rnig': there is no such drawing; did you mean 'ring'"):
        drawings.drawing("rnig")
    with pytest.raises(SpecError, match="known: amp_step"):
        drawings.alt("nothing like it")


def test_kinds_of_work_differ_without_colour():
    grey = {
        kind: sum(w * c for w, c in zip((0.3, 0.59, 0.11), to_rgb(colour), strict=True)) for kind, (colour, _) in WORK.items()
    }
    for one, two in itertools.combinations(WORK, 2):
        assert abs(grey[one] - grey[two]) > 0.15 or WORK[one][1] != WORK[two][1], (one, two)


# -- ring -----------------------------------------------------------------------------------------------------------------
class Wires:
    """A torch.distributed of threads: what each rank sends is noted with its place in the gradient."""

    def __init__(self, n):
        self.n, self.mine, self.sent = n, threading.local(), [[] for _ in range(n)]
        self.lines = {(a, b): queue.Queue() for a in range(n) for b in range(n)}

    def get_rank(self):
        return self.mine.rank

    def get_world_size(self):
        return self.n

    def isend(self, tensor, to):
        self.sent[self.get_rank()].append(tensor.storage_offset())
        self.lines[self.get_rank(), to].put(tensor.clone())
        return self

    def irecv(self, tensor, source):
        tensor.copy_(self.lines[source, self.get_rank()].get(timeout=10))
        return self

    def wait(self):
        return True

    def P2POp(self, do, tensor, other):
        return do, tensor, other

    def batch_isend_irecv(self, todo):
        return [do(tensor, other) for do, tensor, other in todo]


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_ring_is_drawn_as_the_lab_runs_it(n, monkeypatch):
    states, moves = ring_steps(n)
    assert all(chunk == frozenset(range(n)) for rank in states[-1] for chunk in rank) and len(moves) == 2 * (n - 1)
    wires = Wires(n)
    monkeypatch.setattr(strategy, "dist", wires)
    tensors = [torch.full((n,), 10.0**rank) for rank in range(n)]

    def work(rank):
        wires.mine.rank = rank
        strategy.ring_all_reduce(tensors[rank])

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert all(tensor.tolist() == [sum(10.0**rank for rank in range(n))] * n for tensor in tensors)
    for rank in range(n):
        assert wires.sent[rank] == [chunk for step in moves for who, chunk in step if who == rank]


# -- pipelines ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize(("stages", "m"), [(2, 1), (2, 4), (3, 5), (4, 8)])
def test_schedules_have_the_bubble_of_the_formula(schedule, stages, m):
    orders = [gpipe(m) if schedule == "gpipe" else one_f_one_b(stage, stages, m) for stage in range(stages)]
    assert all(Counter(order) == Counter([(what, i) for what in "FB" for i in range(m)]) for order in orders)
    ran = drive(orders)
    assert 1 - 3 * m / ran.time == pytest.approx((stages - 1) / (m + stages - 1))
    assert ran.held == ([m] * stages if schedule == "gpipe" else [min(m, stages - stage) for stage in range(stages)])


def test_a_schedule_that_cannot_go_on_is_named():
    ran = drive([[("B", 0), ("F", 0)], [("F", 0), ("B", 0)]])
    assert ran.waits == ["stage 0 waits with B0 for B0 of stage 1", "stage 1 waits with F0 for F0 of stage 0"]


def test_staleness_counts_the_updates_of_others_in_between():
    events = pushes([2.0, 2.6, 4.3], 30.0)
    assert [now for _, _, now, _, _ in events] == sorted(now for _, _, now, _, _ in events)
    for worker, began, now, _, stale in events:
        assert stale == sum(began < other < now for who, _, other, _, _ in events if who != worker)
    assert max(stale for *_, stale in events) > 1 and all(stale == 0 for *_, stale in pushes([1.0], 10.0))


# -- data, numbers, models ------------------------------------------------------------------------------------------------
def test_the_frozen_cache_is_drawn_frozen_and_the_others_fresh():
    seen = views(rank=0, progress=None, caches=["false", "true", "frozen"], epochs=3)
    fresh, cached, frozen = ([np.array(picture) for picture in pictures] for pictures in seen.values())
    assert all((a == b).all() for a, b in zip(fresh, cached, strict=True))
    assert all((one == frozen[0]).all() for one in frozen) and (frozen[0] == fresh[0]).all()
    assert not (fresh[0] == fresh[1]).all() and not (fresh[1] == fresh[2]).all()


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_formats_reach_what_torch_says(name, dtype):
    drawn, torchs = next(f for f in FORMATS if f.name == name), torch.finfo(dtype)
    assert (drawn.largest, drawn.smallest, drawn.step_at_1) == (torchs.max, torchs.smallest_normal, torchs.eps)
    assert torch.tensor(drawn.tiniest, dtype=torch.float64).to(dtype) > 0
    assert torch.tensor(drawn.tiniest / 2, dtype=torch.float64).to(dtype) == 0


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 8), ("resnet50", 16)])
def test_parts_add_up_to_the_model(name, blocks):
    found = parts(name)
    with torch.device("meta"):
        model = build_model(name, 64, 3, 100)
    assert sum(part.parameters for part in found) == sum(p.numel() for p in model.parameters())
    assert [part.name for part in found] == ["stem", "stage 1", "stage 2", "stage 3", "stage 4", "head"]
    assert sum(part.blocks for part in found[1:-1]) == blocks
    assert found[0].work == 32 * 32 * 64 * 3 * 3 * 3 and found[-1].work == found[-1].parameters - 100


def test_the_networks_are_as_notebook_7_says():
    lines = {line["model"]: line for line in labkit.networks().lines}
    assert [round(line["times"], 2) for line in lines.values()] == [1.0, 2.09, 2.34]
    assert round(lines["resnet50"]["per_byte"] / lines["resnet18"]["per_byte"], 2) == 1.11, "a tenth more arithmetic per byte"


def test_computed_memory_is_near_the_published_peaks():
    for row in published():
        if row["experiment"] in [f"single_gpu_resnet18_bs{b}_cacheFalse_ampFalse" for b in (128, 256, 512)]:
            batch = int(row["experiment"].split("_bs")[1].split("_")[0])
            weights, activations = bytes_for("resnet18", batch)
            assert (3 * weights + activations) / 2**20 == pytest.approx(row["max_gpu_mem_mb"], rel=0.05)
    assert bytes_for("resnet18", 64)[1] * 2 == pytest.approx(bytes_for("resnet18", 128)[1], rel=0.01)


def test_no_drawing_imports_torch():
    """In a notebook's kernel that would take seconds of its time: what needs torch is computed by a rank."""
    code = "import sys; from labkit.drawings.gallery import drawing, names; print(len([drawing(n) for n in names()]), 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert found.stdout == f"{len(drawings.names())} False\n", found.stderr
