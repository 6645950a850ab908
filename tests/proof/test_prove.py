"""`labkit.prove`: each planted fault is told by its own diagnosis, and every exact strategy of the lab passes."""

from __future__ import annotations

import re

import pytest

import labkit as lab
from labkit.rows.fields import SpecError
from labkit.rows.kinds import KINDS, STRATEGIES
from tests.helpers.own_strategies import FAULTS, SOUND, with_fault

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
    own(SOUND, "ddp")
    with pytest.raises(SpecError, match="the lab has a strategy of this name"):
        lab.prove("ddp")
