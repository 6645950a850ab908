"""What an extension costs, paid in a copy of the repository: a strategy, a group, a figure. And no other file must know of them."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from labkit.rows.kinds import KINDS, SPARE_LOOKS
from tests.helpers.copies import SETS, SMALL, Copy

IDEA = '''"""My idea: after backward, one all-reduce for each gradient."""

import torch.distributed as dist
from torch import Tensor, nn

from labkit.rows.spec import Spec
from labkit.strategy import Place, Precision, broadcast_from_rank0, forward_backward, make_optimizer, rank0_buffers


class MyIdea:
    """A strategy. `labkit.strategy.Strategy` says what `shard`, `step` and `state` mean."""

    def __init__(self, model: nn.Sequential, spec: Spec, place: Place):
        self.shard, self.model = (place.rank, place.processes), model
        broadcast_from_rank0([*model.parameters(), *model.buffers()])
        self.optimizer, self.precision = make_optimizer(model, spec), Precision(spec, place)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One update from this rank's images x (b, c, h, w) and labels y (b,). Returns their mean loss."""
        self.optimizer.zero_grad()
        loss = forward_backward(self.model, x, y, self.precision)
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.shard[1]
        self.precision.step(self.optimizer)
        return loss

    def state(self) -> dict[str, Tensor]:
        """The full weights and buffers, under the model's own names."""
        return {**self.model.state_dict(), **rank0_buffers(self.model)}
'''
ROW = "my_idea_gloo_resnet18_bs128x2_cacheFalse_ampFalse"
IDEAS_FILES = {"labkit/strategies/my_idea.py", "params/03_parallel_strategy.yaml"}
# A plugin for pytest in the copy: the strategy tests launch all their cases at once; here, only those of the new strategy.
ONLY_MINE = """
from tests.helpers import workers
launch_all = workers.in_workers

def only_mine(function, processes, folder, *module, cases, **arguments):
    mine = {name: case for name, case in cases.items() if case["strategy"] == "my_idea"}
    others = {name: {"error": "left out"} for name in cases if name not in mine}
    ranks = launch_all(function, processes, folder, *module, cases=mine, **arguments) if mine else [{}] * processes
    return [rank | others for rank in ranks]

workers.in_workers = only_mine
"""
SEE_IT = f"""
import json, sys
from pathlib import Path
import labkit as lab
from labkit.notebook.live import Live
from labkit.plots.overviews import save
from labkit.report.write import write_report
from labkit.results.table import good, read_results
from labkit.plots import overviews
sets = {SMALL!r}
lesson = lab.Lesson(3, "tiny", overrides=sets)
ran = lesson.run([{ROW!r}])
row = ran.plan.rows[0]
shown = []
live = Live("t", [row], show=shown.append)
live(row, 1, [dict(rank=r, phase="step", epoch=0, step=0, loss=1.0, t=1.0) for r in range(2)])
traced = lesson.trace({ROW!r})
silent = lesson.trace({ROW!r}, exchange=False)
save(overviews.throughput_overview(ran.results), Path("throughput"))
overviews.save_plots = lambda *_: []  # drawn above
pages = write_report("tiny", sets, Path("report.md").absolute(), languages=("en",))
print(json.dumps(dict(status=ran.lines[{ROW!r}]["status"], live=str(shown[-1]), end=live.end([*ran.lines.values()], ran.results) or shown[-1].html,
                      split=traced.split(), silent=silent.split(), report=pages[0].read_text())))
"""


@pytest.fixture(scope="module")
def idea(tmp_path_factory):
    """One file, and one line in another."""
    copy = Copy(tmp_path_factory.mktemp("idea"))
    copy.write("labkit/strategies/my_idea.py", IDEA)
    copy.add("params/03_parallel_strategy.yaml", f"  - {ROW}")
    return copy


def test_a_strategy_is_one_file_and_one_line(idea):
    assert idea.changed == IDEAS_FILES and ROW not in KINDS
    (line,) = [line for line in idea.labkit("rows") if line["name"] == ROW]
    assert (line["status"], line["groups"], line["world_size"], line["backend"]) == ("not run", [3], 2, "gloo")
    (line,) = idea.labkit("run", ROW, "--profile", "tiny", *SETS)
    assert line["status"] == "ok" and line["images_per_s"] > 0, line


def test_a_strategy_of_ones_own_is_shown_like_the_others(idea):
    """In the live view, a lesson, a trace, the report and a picture, where it has a colour that no other strategy has."""
    told = json.loads(idea.python("-c", SEE_IT).splitlines()[-1])
    assert told["status"] == "ok" and ROW in told["live"] and "rank 1" in told["live"]
    assert len(told["split"]) == 2 and all(rank["forward_s"] > 0 and rank["backward_s"] > 0 for rank in told["split"])
    assert len(told["silent"]) == 2, "its ranks can also compute without an exchange"
    assert f"[{ROW}]" in told["report"] and "### 3. " in told["report"]
    colour, _ = SPARE_LOOKS[0]
    assert colour not in {kind.colour for kind in KINDS.values()} and colour in told["end"]
    drawn = (idea.folder / "throughput.svg").read_text()
    assert re.search(f"fill: {colour}", drawn) and not any(f"fill: {kind.colour}" in drawn for kind in KINDS.values())


@pytest.mark.slow
def test_a_strategy_of_ones_own_is_proved_like_the_others(idea):
    """Equality with single, every axis, and optimizer state, by cases that the tests have for any file that they find."""
    (idea.folder / "only_mine.py").write_text(ONLY_MINE)
    files = [f"tests/strategies/test_{name}.py" for name in ("equality", "axes", "optimizer_state", "files")]
    said = idea.tests_pass("-p", "only_mine", *files, "-k", "my_idea or every_strategy_is_here or found_by_glob")
    passed = int(re.match(r"(\d+) passed", said)[1])
    assert passed > 20, said


def test_a_strategy_that_forgets_the_exchange_is_caught(idea, tmp_path):
    """Its default case can fail."""
    copy = Copy(tmp_path)
    copy.write("labkit/strategies/my_idea.py", IDEA.replace("dist.all_reduce(parameter.grad)", "pass"))
    (tmp_path / "only_mine.py").write_text(ONLY_MINE)
    said = copy.python(
        "-m", "pytest", "-q", "-p", "only_mine", "-p", "no:cacheprovider", "tests/strategies/test_equality.py", "-k", "equals_single and my_idea", code=1
    )  # fmt: skip
    assert "a weight on rank 0 is" in said and "1 failed" in said


GROUP = """claim: More workers than two should make a server slower, because each of them sends it all its gradients in every step.
claim_zh: 两个以上的工作进程应当使参数服务器变慢，因为每个工作进程在每一步都会把全部梯度发送给它，于是这一个进程成为整个训练的瓶颈。
group: 12
title_en: More workers
title_zh: 更多进程
rows:
  - ps_mode_resnet18_bs128_workers2
  - ps_mode_resnet18_bs64_workers4
"""
TESTS_OF_GROUPS = ["tests/rows/test_params.py", "tests/rows/test_one_value.py", "tests/test_golden.py", "tests/report/test_report.py",
                   "tests/notebook/test_notebooks.py", "tests/notebook/test_arguments.py", "tests/plots/test_groups.py"]  # fmt: skip
SEE_GROUP = """
from labkit.batch.notebooks import discover, parameters_of
import labkit as lab
(notebook,) = discover([12])
given = parameters_of(notebook, profile="tiny", repeats=1, fresh=False, overrides={})
lesson = lab.Lesson(given["group"], "tiny", rows=given["rows"], claim=given["claim"])
print(notebook.group.title_en, len(lesson.plan.rows), "More workers" in str(lesson.question()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("line", ["12,2 and 4 workers,2 个与 4 个工作进程", ""], ids=["with a line in groups.csv", "without"])
def test_a_group_is_three_files(tmp_path, line):
    """Its rows, its notebook (a copy of another), and a line that says what it compares; without the line the rows are told."""
    copy = Copy(tmp_path)
    copy.write("params/12_more_workers.yaml", GROUP)
    shutil.copy(copy.folder / "notebooks/01_one_gpu_vs_several.ipynb", copy.folder / "notebooks/12_more_workers.ipynb")
    if line:
        copy.add("params/groups.csv", line)
    assert [row["groups"] for row in copy.labkit("rows") if row["name"] == "ps_mode_resnet18_bs64_workers4"] == [[12]]
    assert copy.python("-c", SEE_GROUP).split() == ["More", "workers", "2", "True"]
    copy.tests_pass(
        *TESTS_OF_GROUPS, "-k", "group or table_of or takes_its_parameters or kept_as or rows_json or there_is_one or nothing"
    )


METRIC = """    Metric(
        key="wake_ups",
        digits=0,
        title={"en": "Wake-ups", "zh": "唤醒"},
        heading={"en": "wake-ups", "zh": "唤醒"},
        axis="wake-ups",
    ),
)
METRIC = {"""


def test_a_figure_is_four_files(tmp_path):
    """What a rank measures stands in result.json, in the command line's tables, and in the DataFrame."""
    copy = Copy(tmp_path)
    copy.edit(
        "labkit/engine/loop.py", ("        **clock.figures(),\n", '        **clock.figures(),\n        "wake_ups": 7 + rank,\n')
    )
    copy.edit("labkit/runs/train.py", ('"data_wait_s", "steps")}', '"data_wait_s", "steps", "wake_ups")}'))
    copy.edit("labkit/runs/result.py", ("    first_step_at: float\n", "    first_step_at: float\n    wake_ups: int\n"),
              ("    steps: int\n    epochs: list", "    steps: int\n    wake_ups: int\n    epochs: list"))  # fmt: skip
    copy.edit("labkit/results/metrics.py", (")\nMETRIC = {", METRIC))
    assert len(copy.changed) == 4
    row = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"
    (line,) = copy.labkit("run", row, "--profile", "tiny", *SETS)
    assert (line["status"], line["wake_ups"], line["wake_ups_max"]) == ("ok", 8, 8), line
    (file,) = copy.folder.glob("runs/*/*/1/result.json")
    result = json.loads(file.read_text())
    assert result["wake_ups"] == 8 and [rank["wake_ups"] for rank in result["ranks"]] == [7, 8]
    (line,) = [line for line in copy.labkit("table", "--profile", "tiny", *SETS) if line["name"] == row]
    assert line["wake_ups"] == 8
    frame = f"import labkit; f = labkit.table('tiny', [{row!r}], {SMALL!r}); print(list(f.wake_ups))"
    assert copy.python("-c", frame).strip() == "[8]"
