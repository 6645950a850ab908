"""Which rank is named, of several in trouble at once: signs of our choice, and the sentence that they must give."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labkit.engine.job import Job
from labkit.processes import fork_server
from labkit.processes import supervise as supervising
from labkit.processes.diagnose import LOG_LINES, RankView, RunFailed, diagnose
from labkit.processes.supervise import Rank, supervise

NOBODY = 2**22 + 1  # a process number that Linux never gives
SIGTERM, SIGKILL, SIGSEGV, SERVER_GONE = -15, -9, -11, 255


def error(at: float, text: str = "ValueError: picture 17", **more: Any) -> dict[str, Any]:
    return {"at": at, "error": text, "traceback": "", "oom": False, "lost_peer": False} | more


def lost(at: float) -> dict[str, Any]:
    return error(at, "RuntimeError: connection reset", lost_peer=True)


def no_memory(at: float) -> dict[str, Any]:
    return error(at, "MemoryError: 70 GiB", oom=True)


def view(rank: int, code: int | None = None, error: Any = None, step: int = 2, phase: str = "step", **more: Any) -> RankView:
    event = {"phase": phase, "epoch": 0, "step": step}
    return RankView(rank, NOBODY, code, more.pop("result", None), error, event, Path(f"/nowhere/{rank}"), **more)


CASES = {  # the ranks as they were seen; status, rank and a part of the reason
    "two failed: who was first": ([view(0, 1, error(2.0)), view(1, 1, error(1.0))], "failed", 1, "rank 1 failed in phase 'step'"),
    "two failed: the other was first": ([view(0, 1, error(1.0)), view(1, 1, error(2.0))], "failed", 0, "rank 0 failed"),
    "memory ran out, later": ([view(0, 1, error(1.0)), view(1, 1, no_memory(2.0))], "oom", 1, "rank 1 ran out of memory"),
    "one lost the other": ([view(0, 1, lost(1.0)), view(1, 1, error(2.0))], "failed", 1, "ValueError: picture 17"),
    "all lost each other": ([view(0, 1, lost(2.0)), view(1, 1, lost(1.0))], "failed", 1, "rank 1 lost contact"),
    "one was ended": ([view(0, 1, lost(1.0)), view(1, SIGTERM)], "interrupted", 1, "rank 1 was ended by SIGTERM"),
    "the server was killed": ([view(0, SERVER_GONE), view(1, SERVER_GONE)], "interrupted", 0, "ended because the fork server"),
    "one was killed": ([view(0, 1, error(1.0)), view(1, SIGKILL)], "failed", 1, "killed by SIGKILL (perhaps by the kernel, because memory ran out), last"),
    "one crashed": ([view(0, 1, lost(1.0)), view(1, SIGSEGV)], "failed", 1, "killed by SIGSEGV, last heard"),
    "one left": ([view(0, 1, lost(1.0)), view(1, 0)], "incomplete", 1, "left with exit code 0 before its result"),
    "one left with a code": ([view(0, 1, lost(1.0)), view(1, 7)], "failed", 1, "left with exit code 7, last heard"),
    "one hangs, the other lost it": ([view(0, 1, lost(1.0)), view(1)], "timeout", 1, "rank 1 hung in phase 'step' of epoch 1, step 3"),
    "both wait: who is behind": ([view(0), view(1, step=1)], "timeout", 1, "step 2: no progress for"),
    "both wait: who has no images yet": ([view(0), view(1, phase="data")], "timeout", 1, "rank 1 hung in phase 'data'"),
    "both wait: who is silent": ([view(0, step=1), view(1, silent_s=40.0)], "timeout", 1, "last heard of in phase 'step' of epoch 1, step 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_first_cause_is_told(name: str) -> None:
    views, status, rank, reason = CASES[name]
    for seen in (views, views[::-1]):
        told = diagnose(seen, 20.0, None)
        if name != "the server was killed":
            assert (told.status, told.rank) == (status, rank), told.reason
        assert told.status == status and reason in told.reason, told.reason


def test_the_last_lines_of_a_log_are_kept(tmp_path: Path) -> None:
    one = view(0, 7)
    one.log = tmp_path / "log"
    one.log.write_text("".join(f"line {n}\n" for n in range(100)))
    assert LOG_LINES >= 20, "a traceback has as many"
    assert one.log_tail().splitlines() == [f"line {n}" for n in range(100 - LOG_LINES, 100)]
    assert diagnose([one], 20.0, None).detail == one.log_tail()


# -- how long the launcher waits -----------------------------------------------------------------------------------------------

OK = {"code": 0, "result": {"done": True}}


class Acts:
    """In the place of a Rank: it is what the script says from each second on."""

    def __init__(self, rank: int, script: dict[float, dict[str, Any]]):
        self.rank, self.script, self.process, self.event = rank, script, SimpleNamespace(exitcode=None, sentinel=rank), {}
        self.state: dict[str, Any] = {}

    def listen(self, now: float) -> None:
        self.state = next((state for at, state in sorted(self.script.items(), reverse=True) if now >= at), {})
        self.process.exitcode = self.state.get("code")

    def view(self) -> RankView:
        return view(self.rank, **self.state)

    def stuck(self, timeout_s: float) -> bool:
        return False


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs two scripted ranks with timeout_s=20: (seconds until it was over, the results or what failed)."""
    clock = SimpleNamespace(now=0.0)

    def wait(_: Any, timeout: float = 0.0) -> None:
        clock.now += timeout

    monkeypatch.setattr(supervising, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=lambda seconds: None))
    monkeypatch.setattr(supervising, "connection", SimpleNamespace(wait=wait))
    monkeypatch.setattr(fork_server, "is_stopped", lambda: False)
    job = Job("x:y", 2, tmp_path, timeout_s=20.0, deadline_s=100.0)

    def played(*scripts: dict[float, dict[str, Any]]) -> tuple[float, Any]:
        ranks = [Acts(number, script) for number, script in enumerate(scripts)]
        try:
            told: Any = supervise(job, ranks, None)  # type: ignore[arg-type]
        except RunFailed as failed:
            told = failed
        return clock.now, told

    return played


def test_the_last_rank_has_the_time_of_a_message(play) -> None:
    """The others are through; it may still write its result, or evaluate."""
    assert play({1: OK}, {15: OK}) == (pytest.approx(15, abs=0.3), [{"done": True}] * 2)


def test_a_last_rank_that_never_comes_is_given_up(play) -> None:
    seconds, told = play({1: OK}, {})
    assert seconds == pytest.approx(26, abs=0.5) and (told.status, told.rank) == ("timeout", 1), told


def test_a_rank_may_be_silent_for_the_time_of_a_message(play) -> None:
    """As one that waits for a machine that is busy."""
    _, told = play({1: {"silent_s": 24.0}, 3: OK}, {3: OK})
    assert told == [{"done": True}] * 2
    _, told = play({10: {"silent_s": 26.0}}, {})
    assert (told.status, told.rank) == ("timeout", 0)


def test_the_cause_has_some_seconds_to_show(play) -> None:
    """Rank 0 lost its peer, and says so first."""
    seconds, told = play({1: {"code": 1, "error": lost(1.0)}}, {4: {"code": 1, "error": error(4.0)}})
    assert (told.status, told.rank) == ("failed", 1) and seconds < 6, told
    seconds, told = play({1: {"code": 1, "error": error(1.0)}}, {})
    assert told.rank == 0


def test_the_deadline_is_the_end(play) -> None:
    seconds, told = play({}, {})
    assert seconds == pytest.approx(100, abs=0.5) and "deadline_s=100" in told.reason


# -- what is heard of a rank ---------------------------------------------------------------------------------------------------


def write(folder: Path, *events: tuple[str, int], end: str = "\n") -> None:
    (folder / "events").mkdir(exist_ok=True)
    with open(folder / "events/rank0.jsonl", "a") as file:
        file.write("\n".join(f'{{"phase": "{phase}", "epoch": 0, "step": {step}}}' for phase, step in events) + end)


def test_of_several_events_the_last_counts(tmp_path: Path) -> None:
    rank = Rank(None, tmp_path, 0)
    write(tmp_path, ("setup", 0), ("data", 1), ("step", 1))
    write(tmp_path, ("step", 2), end="")  # still being written
    rank.listen(1.0)
    assert (rank.event["phase"], rank.event["step"]) == ("step", 1)
    write(tmp_path, end="\n")
    rank.listen(2.0)
    assert (rank.event["step"], rank.heard_at, rank.moved_at) == (2, 2.0, 2.0)


def test_steps_between_two_events_count_as_steps(tmp_path: Path) -> None:
    """A rank whose steps are short is first heard of in a later one. If it hangs there, its steps are known."""
    rank = Rank(None, tmp_path, 0)
    write(tmp_path, ("setup", 0))
    rank.listen(1.0)
    write(tmp_path, ("step", 5))
    rank.listen(4.0)
    rank.listen(4.0 + 31)
    assert rank.stuck(20.0)
