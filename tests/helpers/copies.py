"""A copy of the repository, in which a test may add and change files, and what its Python says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from labkit.rows.params import ROOT
from tests.helpers.command_line import json_lines

PARTS = ("labkit", "params", "notebooks", "tests", "pyproject.toml")
SMALL = {"device": "cpu", "epochs": 1, "width": 8, "train_samples": 512, "test_samples": 100, "warmup_steps": 0}
SETS = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]


class Copy:
    """`changed`: the files of the repository that are otherwise in the copy, or new."""

    def __init__(self, folder: Path):
        self.folder, self.changed = folder, set()
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / part, folder / part)

    def write(self, name: str, text: str) -> None:
        self.changed.add(name)
        (self.folder / name).write_text(text, encoding="utf-8")

    def add(self, name: str, line: str) -> None:
        """A line at the end of a file."""
        self.write(name, (self.folder / name).read_text(encoding="utf-8") + line + "\n")

    def edit(self, name: str, *edits: tuple[str, str]) -> None:
        """Replace each text once. It must stand in the file exactly once, or the test's own edit is out of date."""
        text = (self.folder / name).read_text(encoding="utf-8")
        for old, new in edits:
            assert text.count(old) == 1, f"{name}: {old!r} stands there {text.count(old)} times; adapt the test's edit"
            text = text.replace(old, new)
        self.write(name, text)

    def python(self, *words: str, code: int = 0) -> str:
        """What `python words...` prints in the copy."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LABKIT_")}
        environment |= {"PYTHONPATH": str(self.folder), "LABKIT_RUNS": str(self.folder / "runs")}
        done = subprocess.run(
            [sys.executable, *words], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def labkit(self, *words: str) -> list[dict[str, Any]]:
        """What `labkit words... --json` prints."""
        return json_lines(self.python("-c", "from labkit.cli import main; main()", *words, "--json"))

    def tests_pass(self, *words: str) -> str:
        """Run pytest in the copy; what it says in the end."""
        return self.python("-m", "pytest", "-q", "-p", "no:cacheprovider", *words).splitlines()[-1]
