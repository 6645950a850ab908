"""A results folder that others can write into: their links, pipes and files are never followed, emptied or waited for."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from labkit.engine.job import Job
from labkit.probes import doctor
from labkit.processes import launch
from labkit.runs.folders import claimed, held
from labkit.system.files import open_lock, write_whole

KEEP = "somebody's only copy"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file and a folder that are not labkit's, and the folder of a run beside them."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text(KEEP)
    (tmp_path / "runs/quick/row/1").mkdir(parents=True)
    return tmp_path


def untouched(place: Path) -> bool:
    return (place / "precious/file").read_text() == KEEP and os.listdir(place / "precious") == ["file"]


@pytest.mark.parametrize("link", [".lock", "logs", "events", "scratch", "result.json", "attempt.json"])
def test_a_link_in_the_folder_of_a_run_is_refused(place: Path, link: str) -> None:
    folder = place / "runs/quick/row/1"
    (folder / link).symlink_to(place / ("precious" if "." not in link else "precious/file"))
    with pytest.raises(OSError, match=rf"{link}: is a symbolic link.*remove it") as told:
        with claimed(folder):
            pytest.fail("the folder was given away")
    assert "\n" not in str(told.value) and untouched(place)
    with pytest.raises(OSError, match=rf"{link}: is a symbolic link"):  # as of a benchmark, which claims nothing
        launch.launch(Job("tests.helpers.drill_targets:sum_of_ranks", 1, folder))
    assert untouched(place)


@pytest.mark.parametrize("link", ["quick", "quick/row", "quick/row/1"])
def test_a_link_on_the_way_to_it_is_refused(place: Path, link: str) -> None:
    aside = place / "precious" / "aside"
    (place / "runs" / link).rename(aside)
    (place / "runs" / link).symlink_to(aside)
    with pytest.raises(OSError, match=rf"runs/{link}: is a symbolic link"), claimed(place / "runs/quick/row/1"):
        pytest.fail("the folder was given away")


def test_the_results_folder_itself_may_be_a_link(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "far").symlink_to(place / "runs")
    monkeypatch.setenv("LABKIT_RUNS", str(place / "far"))
    with claimed(place / "far/quick/row/1"):
        assert held(place / "runs/quick/row/1")
    assert not held(place / "runs/quick/row/1")


@pytest.mark.parametrize("stands_there", ["a link", "a link to nothing", "a pipe", "a folder"])
def test_a_lock_is_a_file_and_nothing_else(place: Path, stands_there: str) -> None:
    path = place / "runs/quick/row/1/.lock"
    {
        "a link": lambda: path.symlink_to(place / "precious/file"),
        "a link to nothing": lambda: path.symlink_to(place / "precious/new"),
        "a pipe": lambda: os.mkfifo(path),
        "a folder": path.mkdir,
    }[stands_there]()
    with pytest.raises(OSError, match=r"\.lock"):
        open_lock(path)
    assert not held(path.parent), "labkit cannot hold what it refuses to lock"
    assert untouched(place)


def test_a_lock_that_was_there_keeps_its_content(place: Path) -> None:
    """By another name it may be a file that is not ours."""
    os.link(place / "precious/file", place / "runs/quick/row/1/.lock")
    with claimed(place / "runs/quick/row/1"):
        assert held(place / "runs/quick/row/1")
    assert untouched(place)


def test_a_draft_is_never_written_through_a_link(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name can be guessed: it has the number of the process."""
    monkeypatch.setattr("threading.get_ident", lambda: 7)
    (place / f".text.{os.getpid()}.7").symlink_to(place / "precious/file")
    write_whole(place / "text", b"ours")
    assert (place / "text").read_bytes() == b"ours" and not (place / "text").is_symlink() and untouched(place)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(place: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some network file systems are. The run, a batch's lock, whoever looks at a lock, and doctor say the same."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    folder = place / "runs/quick/row/1"
    open_lock(folder / ".lock").close()
    monkeypatch.setattr("fcntl.flock", refuse)
    said = rf"^{folder}: its file system keeps no locks \(.+\); set LABKIT_RUNS to a folder on a local disk$"
    with pytest.raises(OSError, match=said), claimed(folder):
        pytest.fail("the folder was given away")
    assert not held(folder), "nobody holds what cannot be held, and what lies there can still be shown"
    monkeypatch.setattr(doctor, "CHECKS", (doctor.runs_folder,))
    (finding,) = doctor.examine()
    assert finding.level == "problem" and finding.text.startswith(f"{place}/runs: its file system keeps no locks")
    assert finding.remedy == "set LABKIT_RUNS to a folder on a local disk"


def test_a_lock_that_another_holds_is_another_matter(place: Path) -> None:
    with claimed(place / "runs/quick/row/1"):
        with pytest.raises(OSError, match="another labkit is training this row right now"), claimed(place / "runs/quick/row/1"):
            pytest.fail("the folder was given away twice")
