"""A report with results is not lost to one without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.plots import overviews
from labkit.report.write import write_report
from labkit.rows import params
from tests.helpers.command_line import Said, one_line
from tests.helpers.drill_targets import obstructed
from tests.helpers.made_up import CPU, put, use

SINGLE = "single_gpu_resnet18_bs256_cacheFalse_ampFalse"


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(overviews, "save_plots", lambda *_: [])
    use(monkeypatch, CPU)


def test_a_report_without_results_replaces_none_with_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody looks into the wrong folder: what is there already stays, byte for byte."""
    put(SINGLE)
    report = tmp_path / "report.md"
    files = write_report(path=report)
    before = {path: path.read_bytes() for path in files}
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "elsewhere"))
    for language in ("en", "zh"):
        with pytest.raises(
            OSError, match=r"report.md: this report shows results, but \S*/elsewhere/quick has none; .*LABKIT_RUNS"
        ):
            write_report(path=report, languages=(language,))
    assert {path: path.read_bytes() for path in files} == before
    for file in files:
        file.unlink()
    assert write_report(path=report) == files, "a first report may be empty"
    assert write_report(path=report) == files, "and an empty one may replace an empty one"


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batches that are started, which end at once."""
    from labkit.batch import batch, notebooks

    started: list[int] = []
    monkeypatch.setattr(batch, "run_notebooks", lambda *words, **keys: started.append(1) or [])
    monkeypatch.setattr(notebooks, "discover", lambda numbers: [])
    return started


@pytest.mark.parametrize("obstacle", ["ro", "a file in its place"])
@pytest.mark.parametrize("plots", [False, True])
def test_a_place_that_cannot_be_written_is_told_before_the_first_notebook(
    labkit: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: list[int], obstacle: str, plots: bool
) -> None:
    """A read-only checkout, and one of which only plots/ cannot be written."""
    (tmp_path / "lab").mkdir()
    with obstructed(tmp_path / "lab/plots" if plots else tmp_path / "elsewhere", obstacle) as folder:
        place = tmp_path / "lab" if plots else folder
        one_line(labkit("report", "--folder", str(place)), 1, str(place), "cannot be written", "labkit report --folder DIR")
        monkeypatch.setattr(params, "ROOT", place)
        one_line(labkit("report", "--publish"), 1, str(place), "cannot be written", "labkit report --folder DIR")
    assert not batches


def test_a_report_in_another_folder(labkit: Callable[..., Said], tmp_path: Path, batches: list[int]) -> None:
    put(SINGLE)
    said = labkit("report", "--folder", str(tmp_path / "new/place"), "--lang", "en")
    files = [str(tmp_path / "new/place" / name) for name in ("report.md", "report.html")]
    assert said.out.splitlines()[:2] == files and all(Path(file).exists() for file in files) and batches
    said = labkit("check", "--folder", str(tmp_path / "new/place"))
    assert (said.code, said.out) == (0, f"{tmp_path}/new/place: report.md, report.html: as the results say\n")
    Path(files[0]).write_text("something else")
    assert labkit("check", "--folder", str(tmp_path / "new/place")).code == 1


def test_a_report_that_cannot_be_written_is_told_with_the_rows(
    labkit: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, batches: list[int]
) -> None:
    from labkit.report import write

    def refuse(*words: object, **keys: object) -> None:
        raise OSError("report.md: shows results")

    monkeypatch.setattr(write, "check_place", lambda *words: None)
    monkeypatch.setattr(write, "write_report", refuse)
    said = labkit("report", "--only", "9")
    assert said.code == 1 and "labkit: report.md: shows results\n" in said.err
    assert "single_gpu_resnet18_bs512_cacheFalse_ampFalse: not run yet" in said.out
