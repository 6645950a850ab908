"""A kept result stands for a new run only where nothing that decides its numbers has changed: the row, the machine, versions, code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import labkit
from labkit import strategy
from labkit.data import batches as data
from labkit.data import datasets
from labkit.engine import loop, measure, models, worker
from labkit.probes import wire
from labkit.probes.trace import trace
from labkit.processes import fork_server, launch
from labkit.processes.digest import code_digest
from labkit.rows import spec
from labkit.rows.params import ROOT
from labkit.runs import train as runs
from labkit.runs.folders import conditions
from labkit.runs.plan import plan
from labkit.runs.train import run_once
from labkit.strategies import single
from labkit.system import machine
from labkit.system.files import read_json, write_json
from tests.runs.test_row_figures import rank

ROW = "single_gpu_resnet18_bs128_cacheTrue_ampFalse"
DECIDE = (data, datasets, loop, machine, measure, models, runs, spec, strategy, worker)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """`train()` asks for the row's result; training itself is a stand-in that counts: its n-th run measures n images/s."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    monkeypatch.setattr(fork_server, "warm", lambda *_, **__: None)
    trained = []

    def stand_in(*_):
        trained.append(1)
        return runs.figures([rank(0, [0, 1], float(len(trained)))], 1000.0)

    monkeypatch.setattr(runs, "train", stand_in)
    row = plan(ROW, "tiny").rows[0].spec

    def train(**how):
        return run_once(row, "tiny", **how).images_per_s

    train.file, train.spec = tmp_path / "tiny" / row.name / "1" / "result.json", row
    return train


def changed(path: Path, **news):
    write_json(path, read_json(path) | news)


def test_the_same_is_not_trained_again(lab):
    assert [lab(), lab(), lab()] == [1.0, 1.0, 1.0]
    kept = read_json(lab.file)
    about = json.loads(json.dumps(conditions(lab.spec)))
    assert {key: kept[key] for key in about} == about and set(about) >= {"spec", "machine", "versions", "code"}
    assert about["code"] == code_digest() and about["spec"] == lab.spec.to_dict()


@pytest.mark.parametrize(
    ("key", "news"),
    {
        "code": lambda old: "of before",
        "machine": lambda old: old | {"cores": old["cores"] + 1},
        "versions": lambda old: old | {"torch": "1.0"},
        "spec": lambda old: old | {"seed": 7},
    }.items(),
)
def test_what_is_of_other_conditions_is_trained_again(lab, key, news):
    """And replaced: the next call finds a result of today's conditions."""
    assert lab() == 1.0
    changed(lab.file, **{key: news(read_json(lab.file)[key])})
    assert [lab(), lab()] == [2.0, 2.0], f"a result of another {key} was taken for today's"


def test_a_result_that_tells_no_conditions_is_trained_again(lab):
    assert lab() == 1.0
    write_json(lab.file, {key: value for key, value in read_json(lab.file).items() if key != "code"})
    assert lab() == 2.0


def test_fresh_trains_always_or_what_is_older(lab):
    assert [lab(), lab(fresh=True), lab()] == [1.0, 2.0, 2.0]
    began = read_json(lab.file)["started_at"]
    assert [lab(fresh=began), lab(fresh=began - 1), lab(fresh=began + 1e-3)] == [2.0, 2.0, 3.0]


def test_a_repeat_is_a_result_of_its_own(lab):
    assert [lab(repeat=1), lab(repeat=2), lab(repeat=1)] == [1.0, 2.0, 1.0]


EDIT_EACH = """
import importlib, json, sys
from pathlib import Path
digest = importlib.import_module(sys.argv[2]).code_digest
print(json.dumps([digest()]))
for name in json.loads(sys.argv[1]):
    before = Path(name).read_bytes() if Path(name).exists() else None
    Path(name).write_bytes((before or b"") + b"# edited\\n")
    print(json.dumps([name, digest()]))
    Path(name).unlink() if before is None else Path(name).write_bytes(before)
print(json.dumps([digest()]))
"""


def test_every_file_that_decides_a_number_is_in_the_codes_digest(tmp_path):
    """In a copy of the package: an edit of any of them changes the digest, and taking it back gives the old one. So does a new file."""
    here, home = Path(labkit.__file__).parent, tmp_path / "lab"
    shutil.copytree(here, home / "labkit", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "params", home / "params")
    strategies = sorted(Path(single.__file__).parent.glob("[a-z]*.py"))
    assert len(strategies) >= 7
    files = [Path(module.__file__) for module in DECIDE] + strategies
    copies = [str(home / "labkit" / file.relative_to(here)) for file in files]
    copies += [
        str(home / "labkit" / folder / "a_new_one.py") for folder in ("engine", "strategies", "data", "rows", "runs", "system")
    ]
    done = subprocess.run(
        [sys.executable, "-c", EDIT_EACH, json.dumps(copies), code_digest.__module__],
        env=os.environ | {"PYTHONPATH": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
    )
    (first,), *edited, (last,) = [json.loads(line) for line in done.stdout.splitlines()] or [done.stderr]
    assert first == last == code_digest(), "a copy has the same digest"
    same = [name for name, digest in edited if digest == first]
    assert not same, f"edited, and yet results of before stay valid: {same}"
    assert len({digest for _, digest in edited}) == len(copies)


# -- probes are kept alike ----------------------------------------------------------------------


@pytest.mark.parametrize("key", ["code", "machine", "versions", "probe", "sizes"])
def test_messages_are_measured_again_under_other_conditions(tmp_path, monkeypatch, key):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    jobs = []
    monkeypatch.setattr(launch, "launch", lambda job: jobs.append(job) or [[{"n": len(jobs)}]])
    sizes = (1024, 4096)
    assert [wire.wire(sizes=sizes), wire.wire(sizes=sizes)] == [[{"n": 1}]] * 2
    (kept,) = tmp_path.rglob("wire.json")
    changed(kept, **{key: "of before"})
    assert [wire.wire(sizes=sizes), wire.wire(sizes=sizes)] == [[{"n": 2}]] * 2
    assert wire.wire(sizes=sizes, fresh=True) == [{"n": 3}]
    assert jobs[0].arguments["sizes"] == [1024, 4096] and jobs[0].processes == 2


@pytest.mark.parametrize("key", ["code", "machine", "versions", "probe", "spec"])
def test_a_trace_is_recorded_again_under_other_conditions(tmp_path, monkeypatch, key):
    """And its seconds count from the first step of the rank that began first."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    jobs = []

    def ranks(job):
        jobs.append(job)
        late = {"rank": 1, "steps": [[51.0, 54.0]], "events": [["forward", 0, 0, 0, 52.0, 53.0]], "holds": {}}
        first = {"rank": 0, "steps": [[50.0, 52.0]], "events": [["backward", 0, 0, 0, 50.5, 51.5]], "holds": {}}
        message = {"verb": "all_reduce", "bytes": 8, "peer": None, "members": [0, 1], "turn": 0}
        message |= {"called": 50.5, "ended": 51.5, "waited": None, "went_on": None}
        return [late | {"messages": [], "trial": []}, first | {"messages": [message], "trial": []}]

    monkeypatch.setattr(launch, "launch", ranks)
    told = [trace(ROW, "tiny", steps=1) for _ in range(2)]
    assert len(jobs) == 1 and told[0].ranks == told[1].ranks and jobs[0].arguments["steps"] == 1
    assert [rank["steps"] for rank in told[0].ranks] == [[[1.0, 4.0]], [[0.0, 2.0]]]
    assert [rank["events"][0][4:] for rank in told[0].ranks] == [[2.0, 3.0], [0.5, 1.5]]
    assert [told[0].ranks[1]["messages"][0][key] for key in ("called", "ended", "waited")] == [0.5, 1.5, None]
    (kept,) = tmp_path.rglob("trace.json")
    changed(kept, **{key: "of before"})
    assert [len(trace(ROW, "tiny", steps=1).ranks) for _ in range(2)] == [2, 2] and len(jobs) == 2
    trace(ROW, "tiny", steps=2)
    assert len(jobs) == 3, "of two steps it is another trace"
