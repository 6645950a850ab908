"""YAML has one meaning here, the one that people read; and a file that is not as it should be is told in a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.rows import params
from labkit.rows.yaml_files import read_yaml
from labkit.terminal import read_sets
from tests.helpers.refusals import refused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs: 1\nlr: 0.1\nepochs: 2", ("line 3", "'epochs' stands there twice", "line 1")),
        ("epochs: 1\n'epochs': 1", ("line 2", "twice")),
        ("a:\n  - b: 1\n    c: 2\n    b: 3", ("line 4", "'b'", "line 2")),
        ("a: {b: 1, b: 2}", ("line 1", "'b'")),
        ("1: a\n1: b", ("line 2", "'1'")),
        ("a: 1\nepochs: 010", ("line 2", "010", "base 8", "write 10,")),
        ("a: -007", ("line 1", "-007", "write 7")),
        ("a: 00", ("00", "write 0")),
        ("a: 08", ("08", "write 8")),
        ("a: [1, 0_1]", ("0_1",)),
        ("010: a", ("line 1", "010")),
        ("a: 10:24", ("line 1", "10:24", "base 60")),
        ("a: 1:30.5", ("1:30.5", "base 60")),
        ("a: &x [1]\nb: *x", ("line 2", "*x", "alias")),
        ("a: " + "[" * 1000 + "]" * 1000, ("line 1", "nested")),
        ("a: " + "{b: " * 1000 + "}" * 1000, ("line 1", "nested")),
        ("\n".join(f"{' ' * n}a:" for n in range(1000)), ("line 21", "nested")),
        ("a: " + "[" * 200_000, ("line 1", "nested")),
    ],
)
def test_what_few_people_expect_is_refused(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    refused(lambda: read_yaml(file), file, *words)


def test_what_everybody_reads_alike_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    text = (
        "a: 10\nb: 0\nc: '010'\nd: 0.5\ne: -3\nf: 1_000\ng: '10:24'\nh: 1.0e-4\ni: 0x1F\nj:\n  - {a: 1}\n  - {a: 2}\nk: bs010\n"
    )
    file.write_text(text)
    right = {"a": 10, "b": 0, "c": "010", "d": 0.5, "e": -3, "f": 1000, "g": "10:24", "h": 1e-4, "i": 31}
    assert read_yaml(file) == right | {"j": [{"a": 1}, {"a": 2}], "k": "bs010"}


@pytest.mark.parametrize("twice", ["epochs: 2", "about: again"])
def test_profiles_are_read_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twice: str) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/mine.yaml").write_text(f"about: mine\nepochs: 1\n{twice}\n")
    monkeypatch.setattr(params, "PARAMS", tmp_path)
    refused(lambda: params.profile("mine"), tmp_path / "profiles/mine.yaml, line 3", "twice")


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["epochs=1", "lr=0.1", "epochs=2"], ("epochs", "twice")),
        (["epochs=010"], ("epochs=010", "without a 0 in front")),
        (["lr=010"], ("lr=010", "without a 0 in front")),
        (["epochs=1_0"], ("epochs=1_0", "digits")),
        (["epochs=\uff11\uff12"], ("epochs=\uff11\uff12", "digits")),
        (["epochs=10:24"], ("epochs=10:24", "whole number")),
    ],
)
def test_the_command_line_is_read_so(sets: list[str], words: tuple[str, ...]) -> None:
    refused(lambda: read_sets(sets), *words)


def test_the_command_line_takes_plain_numbers() -> None:
    assert read_sets(["epochs=10", "lr=0.05", "momentum=0", "seed=0"]) == {"epochs": 10, "lr": 0.05, "momentum": 0.0, "seed": 0}
