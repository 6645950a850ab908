"""A report with results is not lost to one without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.plots import overviews
from labkit.report.write import write_report
from tests.helpers.command_line import Said
from tests.helpers.made_up import CPU, put, use

SINGLE = "single_gpu_resnet18_bs256_cacheFalse_ampFalse"


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(overviews, "save_plots", lambda results, folder: [])
    use(monkeypatch, CPU)


def test_a_report_without_results_replaces_none_with_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody looks into the wrong folder: what is there already stays, byte for byte."""
    put(SINGLE)
    report = tmp_path / "report.md"
    files = write_report(path=report)
    before = {path: path.read_bytes() for path in files}
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "elsewhere"))
    for language in ("en", "zh"):
        with pytest.raises(OSError, match=r"report.md: shows results, and there are none in \S*/elsewhere/quick; .*LABKIT_RUNS"):
            write_report(path=report, languages=(language,))
    assert {path: path.read_bytes() for path in files} == before
    for file in files:
        file.unlink()
    assert write_report(path=report) == files, "a first report may be empty"
    assert write_report(path=report) == files, "and an empty one may replace an empty one"


def test_a_report_that_cannot_be_written_is_told_with_the_rows(
    labkit: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    from labkit.batch import batch, notebooks
    from labkit.report import write

    def refuse(*words: object, **keys: object) -> None:
        raise OSError("report.md: shows results")

    monkeypatch.setattr(batch, "run_notebooks", lambda *words, **keys: [])
    monkeypatch.setattr(notebooks, "discover", lambda numbers: [])
    monkeypatch.setattr(write, "write_report", refuse)
    said = labkit("report", "--only", "9")
    assert said.code == 1 and "labkit: report.md: shows results\n" in said.err
    assert "single_gpu_resnet18_bs512_cacheFalse_ampFalse: not run yet" in said.out
