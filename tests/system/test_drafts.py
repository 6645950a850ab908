"""What a killed writer left is cleared by the next one, and what a living one writes is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from labkit.system.files import abandoned, owner, write_whole

ROOT = Path(__file__).parents[2]
DIES = """
import os, signal, sys
from pathlib import Path
from labkit.system.files import write_whole
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_whole(Path(sys.argv[1]), b"never")
"""


def test_a_killed_writer_s_draft_is_cleared_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a [1].json"
    path.write_bytes(b"old")
    assert subprocess.run([sys.executable, "-c", DIES, path], cwd=ROOT).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2 and path.read_bytes() == b"old"
    living = tmp_path / f".{path.name}.{owner()}.1"  # of another thread of ours
    elsewhere = tmp_path / f".{path.name}.another host~{os.getpid()}.1"
    for draft in (living, elsewhere):
        draft.touch()
    write_whole(path, b"new")
    assert sorted(tmp_path.iterdir()) == sorted([path, living, elsewhere]) and path.read_bytes() == b"new"


def test_whose_a_name_is() -> None:
    mine, gone = owner(), subprocess.Popen(["true"])
    gone.wait()
    assert not abandoned(mine)
    assert abandoned(mine.replace(str(os.getpid()), str(gone.pid)))
    for other in ("", "~", "1234", f"another host~{gone.pid}", mine + "x", "12.5.7"):
        assert not abandoned(other), other
