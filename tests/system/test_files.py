"""What is damaged and what may only not be read; and text files that mean the same in every locale."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labkit.batch.notebooks import discover
from labkit.data import raw_files
from labkit.data.datasets import DatasetError, open_arrays, prepare
from labkit.results.table import read_results
from labkit.rows.params import ROOT
from labkit.runs.statuses import read_statuses
from labkit.system.files import read_json, write_json
from tests.helpers.command_line import SINGLE as ROW
from tests.helpers.command_line import Said, one_line


def refuse(*_: Any, **__: Any) -> None:
    raise PermissionError(13, "Permission denied", "somewhere")


@pytest.mark.parametrize("content", [b"{", b"", b"\xff", b"[" * 100_000])
def test_only_content_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(OSError, match=r"result\.json: damaged .*delete this file") as told:
        read_json(tmp_path / "result.json")
    assert "\n" not in str(told.value)


def test_a_file_that_may_not_be_read_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "result.json", {})
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(PermissionError, match=r"^((?!damaged).)*$"):
        read_json(tmp_path / "result.json")


def test_prepared_arrays_that_may_not_be_read_are_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepare("digits", tmp_path / "{odd}")
    monkeypatch.setattr(np, "load", refuse)
    with pytest.raises(DatasetError, match=r"\{odd\}.*cannot be read .*Permission denied.*LABKIT_DATA") as told:
        open_arrays(folder)
    assert "damaged" not in str(told.value) and "delete" not in str(told.value)
    monkeypatch.undo()
    (folder / "test_labels.npy").unlink()
    with pytest.raises(DatasetError, match=r"damaged .*delete this folder"):
        open_arrays(folder)


def test_raw_files_that_may_not_be_read_are_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits/digits.csv.gz").write_bytes(b"x")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DatasetError, match=r"cannot be read .*Permission denied.*may read it") as told:
        raw_files.contents("digits", "digits.csv.gz", tmp_path)
    assert "truncated" not in str(told.value)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Closes a folder to us, as mode 700 of another user does. (To root no folder is closed.)"""
    scandir = os.scandir

    def close(folder: Path) -> None:
        def scan(path: Any = ".") -> Any:
            if Path(path) == folder:
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", scan)

    return close


@pytest.mark.parametrize("part", ["", ROW, "notebooks"])
def test_results_of_another_user_are_not_not_run_yet(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: Callable[[Path], None], labkit: Callable[..., Said]
) -> None:
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    (tmp_path / "tiny" / ROW / "1").mkdir(parents=True)
    (tmp_path / "tiny/notebooks").mkdir()
    folder = tmp_path / "tiny" / part if part else tmp_path / "tiny"
    closed(folder)
    for words in (("table",), ("table", "--json"), ("rows",), ("check",)):
        one_line(labkit(*words, "--profile", "tiny"), 1, f"{folder}: cannot be read (Permission denied)", "LABKIT_RUNS")
    if part == "notebooks":
        with pytest.raises(OSError, match=r"notebooks: cannot be read"):
            read_statuses("tiny")


def test_notebooks_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: Callable[[Path], None]) -> None:
    monkeypatch.setenv("LABKIT_NOTEBOOKS", str(tmp_path))
    closed(tmp_path)
    with pytest.raises(OSError, match=rf"^{tmp_path}: cannot be read \(Permission denied\); .*LABKIT_NOTEBOOKS"):
        discover()


def test_a_folder_that_is_not_there_is_not_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "none"))
    assert read_results("tiny") == {} and read_statuses("tiny") == []


def test_a_good_result_is_good_in_every_locale(tmp_path: Path) -> None:
    """Results hold names of processors, and folders, in any script."""
    write_json(tmp_path / "result.json", {"run_dir": "/数据"})
    code = "import sys; from pathlib import Path; from labkit.system.files import read_json\n"
    code += "print(ascii(read_json(Path(sys.argv[1]))))"
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", code, str(tmp_path / "result.json")]
    done = subprocess.run(words, env=ascii_only, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == ascii({"run_dir": "/数据"}), done.stderr


def texts_without_encoding(source: str) -> list[int]:
    """The lines that open a text file, or read or write one, and leave its encoding to the locale."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        words = {keyword.arg: keyword.value for keyword in call.keywords}
        modes = [words["mode"]] if "mode" in words else call.args[1:2]
        binary = any(isinstance(mode, ast.Constant) and "b" in str(mode.value) for mode in modes)
        opens = isinstance(call.func, ast.Name) and name == "open" and not binary
        ours = name == "read_text" and len(call.args) == 2  # fields.read_text, which reads no file
        if (opens or (name in ("read_text", "write_text") and not ours)) and "encoding" not in words:
            found.append(call.lineno)
    return found


def test_no_text_file_is_left_to_the_locale() -> None:
    assert texts_without_encoding("open('x'); open('x', 'rb'); p.read_text(); p.write_text('', encoding='utf-8')") == [1, 1]
    files = sorted((ROOT / "labkit").rglob("*.py"))
    told = {str(path.relative_to(ROOT)): texts_without_encoding(path.read_text(encoding="utf-8")) for path in files}
    assert {name: lines for name, lines in told.items() if lines} == {}


def test_json_of_ours_is_utf8(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": "单卡"})
    assert json.loads((tmp_path / "x.json").read_bytes().decode("utf-8")) == {"a": "单卡"}
