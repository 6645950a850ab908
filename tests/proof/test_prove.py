"""`labkit.prove`: each planted fault is told by its own diagnosis, and every exact strategy of the lab passes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import labkit as lab
from labkit.batch.notebooks import discover, inputs_of
from labkit.proof.prove import proof_for
from labkit.rows.fields import SpecError
from labkit.rows.kinds import KINDS, STRATEGIES, strategies
from labkit.rows.params import ROOT
from labkit.runs.folders import conditions, proofs_folder
from labkit.runs.plan import plan
from labkit.runs.train import get_ready, train_rows
from tests.helpers.own_strategies import FAULTS, SOUND, with_fault

ROW = "mine_gloo_resnet18_bs32x2_cacheTrue_ampFalse"
SMALL = {"device": "cpu", "epochs": 1, "width": 8, "train_samples": 512, "test_samples": 50, "warmup_steps": 0}
EXACT = [name for name in STRATEGIES if KINDS[name].exact and name != "single"]
SETTINGS = [(name, {}) for name in EXACT] + [
    ("ddp", {"static_graph": True}),
    ("collective", {"form": "ring"}),
    ("collective", {"form": "buckets", "bucket_mb": 0.001}),
    ("fsdp", {"sharding": "full"}),
    ("model_parallel", {"micro_batches": 4, "schedule": "1f1b"}),
    ("parameter_server", {"consistency": "sync"}),
]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a strategy of one's own; its folder and its results are the test's."""
    monkeypatch.setenv("LABKIT_STRATEGIES", str(tmp_path / "own"))
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))

    def write(source, name="mine"):
        (lab.my_strategies() / f"{name}.py").write_text(source, encoding="utf-8")
        return name

    return write


@pytest.mark.parametrize(("strategy", "settings"), SETTINGS)
def test_every_exact_strategy_is_proved(own, strategy, settings):
    proof = lab.prove(strategy, **settings)
    assert proof and not proof.fault and "hold single's weights" in str(proof), proof
    assert ("refuses a parameter that gets no gradient" in str(proof)) == ((strategy, settings) == ("ddp", {}))


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_sound_strategy_of_ones_own_is_proved(own, ranks):
    assert lab.prove(own(SOUND), ranks=ranks)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_told_by_its_own_diagnosis(own, name):
    _, fault, said = FAULTS[name]
    proof = lab.prove(own(with_fault(name)))
    assert not proof and proof.fault == fault, f"{name}: {proof}"
    assert said in proof.message, f"{name}: {proof}"
    assert proof.hint and (proof.where or fault in ("names", "shards", "buffers", "loss")), proof


def test_an_edit_counts_at_once(own):
    """A file that is written twice in one second, with as many letters: the second one is proved."""
    for division, passed in (("n", True), ("N", False), ("n", True)):
        own(
            SOUND.replace("self.rank, self.n, self", "self.N = 1\n        self.rank, self.n, self").replace(
                "/= self.n", f"/= self.{division}"
            )
        )
        assert bool(lab.prove("mine")) == passed


def test_three_ranks_find_a_fault_that_two_hide(own):
    proof = lab.prove(own(SOUND.replace("p.grad /= self.n", "p.grad /= 2")), ranks=3)
    assert lab.prove("mine") and proof.fault == "factor" and "Every gradient is 1.50 times" in proof.message


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("        loss = ", "        assert not self.rank, 'planted'\n        loss = ", "rank 1 failed"),
        ("import torch\n", "import torch !\n", "mine.py, line 3: SyntaxError"),
        ("    def step(", "    def stop(", "holds no class with a method `step`"),
        ("dist.all_reduce(p.grad)", "dist.all_reduce(p.grad) if self.rank == 0 or self.steps == 0 else None", "rank"),
    ],
    ids=["raises on rank 1", "broken syntax", "no step", "a rank leaves the exchange out"],
)  # fmt: skip
def test_what_hangs_or_raises_is_one_line(own, old, new, said):
    assert SOUND.count(old) == 1
    source = SOUND.replace(old, new)
    proof = lab.prove(own(source), timeout_s=3.0)
    assert proof.fault == "failed" and said in proof.message, proof
    assert "\n" not in str(proof) and "Traceback" not in str(proof)
    if "planted" in source:
        assert re.search(r"AssertionError: planted \(mine.py, line \d+\)", str(proof)), proof


def test_what_cannot_be_held_against_single_is_refused_by_name(own):
    for words, said in (
        (("parameter_server",), "parameter_server, consistency=async: applies gradients of older weights"),
        (("single",), "single: is what the others are held against"),
        (("ddpp",), "did you mean 'ddp'"),
        (("ddp", 0), "ranks=0"),
        (("model_parallel", 1), "needs at least 2 ranks"),
    ):
        with pytest.raises(SpecError, match=re.escape(said)):
            lab.prove(*words)
    with pytest.raises(SpecError, match="lr: no setting of a proof of ddp"):
        lab.prove("ddp", lr=1.0)
    own(SOUND, "ddp")
    with pytest.raises(SpecError, match="the lab has a strategy of this name"):
        lab.prove("ddp")


# -- a row of one's own strategy -------------------------------------------------------------------------------------------


def trained(row=ROW):
    planned = get_ready([row], "tiny", overrides=SMALL)
    (outcome,) = train_rows(planned, 1, False)[row]
    return outcome


def test_a_row_is_proved_before_it_is_trained(own):
    own(SOUND)
    result = trained()
    assert result.status == "ok" and result.strategy == {"proved": True}
    assert Path(result.run_dir, "mine.py").read_text(encoding="utf-8") == SOUND, "the file that ran is kept with the run"


def test_a_row_that_is_not_singles_arithmetic_is_no_result(own):
    """Its ranks end with the same weights, so nothing else would find it."""
    own(with_fault("a sum for the mean"))
    outcome = trained()
    assert outcome.status == "failed" and "Every gradient is 2.00 times single's" in outcome.reason and "\n" not in outcome.reason
    own(SOUND)
    assert trained().status == "ok", "corrected, it trains at once"


def test_a_strategy_that_claims_no_equality_is_trained_and_marked(own):
    own(with_fault("a sum for the mean").replace("class Mine:", "class Mine:\n    exact = False\n"))
    result = trained()
    assert result.status == "ok" and result.strategy == {"proved": False}
    shown = str(lab.kept([ROW], "tiny", SMALL).table())
    assert "not proved: its class says exact = False" in shown


def test_an_edit_of_ones_own_strategy_makes_its_own_results_invalid_and_no_others(own):
    own(SOUND)
    own(SOUND, "other")
    rows = [ROW, ROW.replace("mine", "other"), "ddp_gloo_resnet18_bs32x2_cacheTrue_ampFalse"]

    def codes():
        return [conditions(row.spec)["code"] for row in plan(rows, "tiny", SMALL)]

    before = codes()
    own(SOUND + "# edited\n")
    assert [one == other for one, other in zip(before, codes(), strict=True)] == [False, True, True]


def test_a_file_is_a_strategy_from_the_moment_it_is_there(own):
    with pytest.raises(SpecError, match="not the name of a row"):
        plan([ROW], "tiny")
    own(SOUND)
    assert strategies() == [*STRATEGIES, "mine"]
    assert (
        plan([ROW], "tiny").rows[0].name == ROW
        and "class Mine" in str(lab.code("mine"))
        and "Mine" in str(lab.diff("ddp", "mine"))
    )


def test_a_report_leaves_rows_of_ones_own_out(own):
    """Its reader does not have the strategy; a row that lost its file is left out, too."""
    from labkit.report.source import from_folders

    own(SOUND)
    assert trained().status == "ok"
    assert from_folders("tiny", SMALL).outcomes == {}
    (lab.my_strategies() / "mine.py").unlink()
    assert from_folders("tiny", SMALL).outcomes == {}


def test_the_command_line_proves(own, labkit):
    own(with_fault("a sum for the mean"))
    said = labkit("prove", "mine")
    assert said.code == 1 and "the ranks' gradients were added and not divided by the number of ranks" in said.out
    own(SOUND)
    said = labkit("prove", "mine", "--ranks", "3")
    assert said.code == 0 and said.out.startswith("✓ mine: proved. ") and said.err == ""
    assert labkit("prove", "nobodys").code == 2


def test_the_notebooks_exercise(own):
    """As it stands, it sums; its solution is proved."""
    cells = json.loads((ROOT / "notebooks/02_communication_backend.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if "strategy" in cell["metadata"].get("tags", [])]
    files = dict(
        re.fullmatch(r"%%writefile \{lab.my_strategies\(\)\}/(\w+)\.py\n(.*)", text, re.S).groups()
        for text in sources
        if text.startswith("%%")
    )
    assert list(files) == ["my_ddp", "solution_ddp"]
    blank, solved = (lab.prove(own(source, name)) for name, source in files.items())
    assert blank.fault == "sum" and solved


def test_torchrun_asks_for_a_proof_that_is_kept(own):
    """Its ranks are there already, so it starts none."""
    own(SOUND)
    row = plan([ROW], "tiny", SMALL).rows[0].spec
    with pytest.raises(SpecError, match="mine: is not proved; call `labkit prove mine --ranks 2`"):
        proof_for(row, proofs_folder(), start=False)
    assert lab.prove("mine") and proof_for(row, proofs_folder(), start=False)
    own(SOUND + "# edited\n")
    with pytest.raises(SpecError, match="is not proved"):
        proof_for(row, proofs_folder(), start=False)


def test_an_executed_notebook_depends_on_the_strategies_of_its_rows(own, tmp_path):
    notebook = discover([2])[0]
    own(SOUND)

    def digests():
        return [inputs_of(notebook, {}, tmp_path, rows) for rows in ([ROW], ["ddp_gloo_resnet18_bs32x2_cacheTrue_ampFalse"])]

    before = digests()
    own(SOUND + "# edited\n")
    assert [one == other for one, other in zip(before, digests(), strict=True)] == [False, True]
