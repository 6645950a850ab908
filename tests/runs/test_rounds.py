"""Speeds measured in turn: in which order, when they are measured again, and what a busy machine or a failed row does to them."""

import json
import subprocess
import sys
import time

import pytest

from labkit.processes.diagnose import RunFailed
from labkit.runs import rounds
from labkit.runs.plan import plan
from labkit.runs.rounds import CONTROL, Rounds, kept_rounds, measure
from labkit.system.files import Unreadable
from labkit.system.machine import Taken, Watch, busy
from tests.helpers.made_up import CPU, use

SINGLE, DP, DDP = (
    "single_gpu_resnet18_bs256_cacheFalse_ampFalse",
    "dp_resnet18_bs256_ngpu2_cacheFalse_ampFalse",
    "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse",
)
SPEED = {SINGLE: 1000.0, DP: 1000.0, DDP: 2000.0}


@pytest.fixture
def turns(monkeypatch, tmp_path):
    """The turns that were made, as (row, seed). Each gives the speed of its row, one round a tenth of the others."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    made = []

    def one_turn(spec, folder):
        made.append((spec.name, spec.seed))
        return SPEED[spec.name] * (0.1 if 3 < len(made) <= 6 else 1.0) * (1 + 0.001 * (len(made) % 3))

    monkeypatch.setattr(rounds, "one_turn", one_turn)
    monkeypatch.setattr(rounds.fork_server, "warm", lambda wait: None)
    monkeypatch.setattr(Watch, "taken", lambda self: Taken(0.0, 0.0))
    return made


def of(*names, profile="quick"):
    return plan(list(names), profile)


def test_rows_take_turns_and_the_first_one_is_its_own_control(turns):
    found = measure(of(SINGLE, DDP))
    assert turns[:6] == [(SINGLE, 0), (DDP, 0), (SINGLE, 1)] * 2, "one round after the other; the control has another seed"
    assert len(found.turns) == 3, "three rounds are enough where the spread is small"
    assert (found.of(DDP) / found.of(SINGLE)).median == pytest.approx(2.0, rel=0.01)
    assert found.control.median == pytest.approx(1.0, rel=0.01) and not found.noisy


def test_noise_makes_more_rounds_up_to_the_most(turns, monkeypatch):
    wild = iter([900.0, 400.0, 1300.0, 700.0, 2000.0, 300.0, 800.0] * 10)
    monkeypatch.setattr(rounds, "one_turn", lambda spec, folder: next(wild))
    found = measure(of(SINGLE, DDP))
    assert len(found.turns) == of(SINGLE).profile.rounds[1] and (found.of(DDP) / found.of(SINGLE)).order() is None


def test_a_control_that_differs_makes_all_of_it_noise(turns, monkeypatch):
    speeds = SPEED | {"other seed": 500.0}
    monkeypatch.setattr(rounds, "one_turn", lambda spec, folder: speeds["other seed" if spec.seed else spec.name])
    found = measure(of(SINGLE, DDP))
    assert found.control.order() == 1 and found.noisy and not found.busy
    assert (found.of(DDP) / found.of(SINGLE)).order() is None


def test_a_busy_machine_is_noise_and_is_not_measured_longer(turns, monkeypatch):
    use(monkeypatch, CPU)
    monkeypatch.setattr(rounds, "this_machine", lambda: CPU)
    monkeypatch.setattr(Watch, "taken", lambda self: Taken(1.5, 0.0))
    found = measure(of(SINGLE, DDP))
    assert found.busy and found.noisy and len(found.turns) == 3
    ratio = found.of(DDP) / found.of(SINGLE)
    assert ratio.order() is None and "other programs" in ratio.why_untold()


def test_kept_rounds_count_for_part_of_their_rows_and_until_something_changes(turns, monkeypatch):
    measure(of(SINGLE, DP, DDP))
    turns.clear()
    again = measure(of(SINGLE, DDP))
    assert not turns and set(again.figures) == {SINGLE, DP, DDP, CONTROL}, "measured with others before"
    measure(of(SINGLE, DDP), fresh=True)
    assert turns, "asked for anew"
    turns.clear()
    measure(of(SINGLE, DDP), fresh=time.time() + 1)
    assert turns, "older than asked for"
    turns.clear()
    measure(plan([SINGLE, DDP], "quick", {"lr": 0.2}))
    assert turns, "another setting"
    monkeypatch.setattr(rounds, "surroundings", lambda: {"code": "edited"})
    assert kept_rounds(of(SINGLE, DDP)) is None, "other code"


def test_a_row_that_fails_is_left_out_and_told(turns, monkeypatch):
    before = rounds.one_turn

    def one_turn(spec, folder):
        if spec.name == DP:
            raise RunFailed("failed", 0, "rank 0 failed: no room")
        return before(spec, folder)

    monkeypatch.setattr(rounds, "one_turn", one_turn)
    found = measure(of(SINGLE, DP, DDP))
    assert found.failed == {DP: "rank 0 failed: no room"} and set(found.figures) == {SINGLE, DDP, CONTROL}
    assert found.of(DP) is None


def test_an_interrupt_ends_the_rounds(turns, monkeypatch):
    def interrupted(spec, folder):
        raise RunFailed("interrupted", 0, "rank 0 was ended by SIGINT")

    monkeypatch.setattr(rounds, "one_turn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(of(SINGLE, DDP))
    assert not list(plan([SINGLE], "quick").folder.glob("rounds/*.json"))


def test_one_row_is_compared_with_nothing(turns):
    assert measure(of(SINGLE)) is None and not turns


@pytest.mark.parametrize(
    "damage", [{"turns": [{SINGLE: -1.0}]}, {"turns": [{SINGLE: 1.0}, {DDP: 1.0}]}, {"turns": 5}, {"names": None}]
)
def test_damaged_rounds_are_refused_and_measured_again(turns, damage):
    measure(of(SINGLE, DDP))
    (file,) = of(SINGLE, DDP).folder.glob("rounds/*.json")
    content = json.loads(file.read_text())
    with pytest.raises(Unreadable):
        rounds.from_json(content | damage, file)
    file.write_text(json.dumps(content | damage))
    turns.clear()
    assert isinstance(measure(of(SINGLE, DDP)), Rounds) and turns


def test_real_rows_give_images_per_second(monkeypatch, tmp_path):
    """Nothing made up: a process alone, two replicas, two ranks, a server with two workers, a pipeline, each for one round."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    others = [
        "ps_mode_resnet18_bs128_workers2",
        "model_parallel_resnet18_bs256_cacheFalse",
        "fsdp_full_resnet18_bs128x2_ampFalse",
    ]
    names = [SINGLE, DP, DDP, *others, "collective_gloo_resnet18_bs128x2"]
    found = measure(of(*names, profile="tiny"))
    assert set(found.figures) == {*names, CONTROL} and not found.failed
    assert all(rate > 0 for rate in found.turns[0].values())


SPIN = "import time; until = time.monotonic() + 20\nwhile time.monotonic() < until: pass"


def test_what_other_programs_take_is_seen_and_what_we_take_is_not():
    """A program that is not ours: its parent ends at once, so it is no child of ours. Then one that is ours."""
    start = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SPIN!r}]).pid)"
    watch = Watch()
    stranger = int(subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=True).stdout)
    try:
        time.sleep(2)
        taken = watch.taken().cores
    finally:
        subprocess.run(["kill", "-9", str(stranger)], check=False)
    assert taken > 0.3, "a spinning stranger takes a core, or its share of one"
    before = rounds_free_cores()
    with subprocess.Popen([sys.executable, "-c", SPIN]) as ours:
        watch = Watch()
        time.sleep(2)
        taken = watch.taken().cores
        ours.kill()
    assert taken < before + 0.6, "our own process counts as ours"


def rounds_free_cores():
    """What others take while we do nothing."""
    watch = Watch()
    time.sleep(1)
    return watch.taken().cores


def test_a_machine_is_busy_only_if_others_take_what_a_run_needs():
    assert busy(0.3, 2, 2) and not busy(0.1, 2, 2), "two cores, both needed"
    assert not busy(30.0, 4, 64) and busy(62.0, 8, 64), "others may use what a run leaves free"
    assert busy(0.5, 6, 2), "a run that wants more than there is"
