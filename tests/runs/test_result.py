"""A result that is read back is the one that was written; and a value that no run can have measured is refused by its field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labkit.runs.result import Result, read_result
from labkit.system.files import Unreadable, read_json, write_json
from tests.helpers.made_up import GPUS, put, use

SINGLE = "single_gpu_resnet18_bs256_cacheFalse_ampFalse"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    use(monkeypatch, GPUS)
    put(SINGLE)
    return tmp_path / "quick" / SINGLE / "1/result.json"


def test_what_was_written_is_read(file: Path) -> None:
    result = read_result(file)
    assert result is not None and result.machine == GPUS and result.ranks[0].shard == (0, 1)
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result


ODD = [("steps", True), ("steps", 1.5), ("pid", 2**60), ("images_per_s", float("nan")), ("images_per_s", float("inf")),
       ("images_per_s", False), ("images_per_s", "1"), ("max_mem_mib", None), ("started_at", -1.0), ("started_at", 1e12),
       ("name", 7), ("commit", "\ud800"), ("versions", {"torch": 2}), ("epochs", [1]), ("strategy", [])]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), ODD)
def test_a_value_of_another_kind_is_refused(file: Path, key: str, value: Any) -> None:
    file.write_text(json.dumps(read_json(file) | {key: value}))
    with pytest.raises(Unreadable, match=f"result.json: '{key}' is .* of type .*train the row again"):
        read_result(file)


ODD_OF_A_RANK = [("messages_per_step", {"send": [1]}), ("messages_per_step", {"send": [1, "2"]}), ("messages_per_step", [1, 2]),
                 ("messages_per_step", {"send": [1.0, float("nan")]}), ("messages_per_step", {"\ud800": [1, 2]}),
                 ("sent_bytes_per_step", "4096"), ("sent_bytes_per_step", True)]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), ODD_OF_A_RANK)
def test_a_value_of_another_kind_in_a_rank_is_refused(file: Path, key: str, value: Any) -> None:
    told = read_json(file)
    file.write_text(json.dumps(told | {"ranks": [told["ranks"][0] | {key: value}]}))
    with pytest.raises(Unreadable, match=f"ranks: '{key}' is .* of type .*train the row again"):
        read_result(file)


def test_bytes_that_were_not_counted_are_not_0(file: Path) -> None:
    told = read_json(file)
    write_json(file, told | {"ranks": [told["ranks"][0] | {"sent_bytes_per_step": None}]})
    assert read_result(file).ranks[0].sent_bytes_per_step is None  # type: ignore[union-attr]


def test_a_run_without_a_server_s_rank_and_one_with(file: Path) -> None:
    """A server trains no part of the images. A run of which no rank trained any has no figures."""
    told = read_json(file)
    server = told["ranks"][0] | {"rank": 1, "shard": None}
    write_json(file, told | {"ranks": [*told["ranks"], server]})
    assert [rank.shard for rank in read_result(file).ranks] == [(0, 1), None]  # type: ignore[union-attr]
    write_json(file, told | {"ranks": [server]})
    with pytest.raises(Unreadable, match="no rank that trained"):
        read_result(file)
