"""`labkit check` finds what in a report is not what its result folders say."""

import json
import re
import subprocess
import sys

import pytest

from labkit.plots import overviews as plots
from labkit.report import check as report_check
from labkit.report.check import compare, report_files
from labkit.report.write import write_report
from labkit.rows import params
from labkit.runs import folders
from tests.helpers.made_up import CPU, put, put_all, use
from tests.helpers.report_pages import PNG

DDP = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"


@pytest.fixture(autouse=True)
def report(monkeypatch, tmp_path):
    """A report of made-up results. Where it lies."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(plots, "save_plots", lambda *_: [])
    monkeypatch.setattr(params, "ROOT", tmp_path)
    use(monkeypatch, CPU)
    put_all()
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "throughput.png").write_bytes(PNG)
    write_report(path=tmp_path / "report.md")
    return tmp_path / "report.md"


def check_report(profile="quick", path=None):
    return report_check.check_report(profile, {}, path)


def spoil(path, old, new):
    text = path.read_text()
    assert text.count(old) >= 1, old
    path.write_text(text.replace(old, new, 1))


def test_a_fresh_report_is_as_its_folders_say(report):
    assert check_report(path=report) == []
    (report.parent / "report.zh.md").unlink()
    assert check_report(path=report) == [], "only what is there is checked"


@pytest.mark.parametrize("languages", [["en"], ["zh"]])
def test_a_report_in_one_language_is_checked(report, languages):
    for path in report.parent.glob("report.*"):
        path.unlink()
    write_report(path=report, languages=languages)
    assert check_report(path=report) == []


def test_a_changed_digit_is_found_by_row_and_column(report):
    spoil(report, "| 1200.0 |", "| 1300.0 |")
    (told,) = check_report(path=report)
    assert re.fullmatch(rf"report\.md, line \d+, {DDP} †, Avg Throughput: has 1300\.0, the results say 1200\.0", told), told
    page = report.parent / "report.zh.html"
    spoil(page, ">1200.0<", ">1210.0<")
    told = check_report(path=report)
    assert len(told) == 2 and told[1].startswith("report.zh.html, line ")
    assert f"{DDP} †, Avg Throughput: has 1210.0, the results say 1200.0" in told[1]


@pytest.mark.parametrize("name", ["report.md", "report.zh.md", "report.html", "report.zh.html"])
def test_every_number_that_is_changed_is_found(report, name):
    """Each number of the file, one after the other."""
    path = report.parent / name
    text = path.read_text()
    figures = [
        m for m in re.finditer(r"(?<=[| >])[+−]?\d+\.\d+(?=[ |<])", text) if "base64" not in text[m.start() - 40 : m.start()]
    ]
    assert len(figures) > 100
    for found in figures:
        wrong = found[0][:-1] + str((int(found[0][-1]) + 1) % 10)
        told = compare(text[: found.start()] + wrong + text[found.end() :], text)
        assert len(told) == 1 and wrong in told[0] and found[0] in told[0], told


def test_a_changed_result_folder_is_found(report):
    folder = folders.runs_folder() / "quick" / DDP / "1"
    content = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(content | {"best_acc_pct": 12.34}))
    told = check_report(path=report)
    assert any("Best Acc (%): has 90.00, the results say 12.34" in line for line in told)
    assert {line.partition(",")[0] for line in told} == {"report.md", "report.html", "report.zh.md", "report.zh.html"}


def test_missing_and_added_lines_links_and_pictures_are_found(report):
    text = report.read_text()
    lines = text.splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if line.startswith("| [fsdp_full"))
    report.write_text("".join(lines[:at] + lines[at + 1 :]))
    (told,) = check_report(path=report)
    assert told.startswith(f"report.md, line {at + 1}: missing: | fsdp_full_resnet18")
    report.write_text("".join([*lines[:at], "| made_up | 1 |\n", *lines[at:]]))
    assert check_report(path=report) == [f"report.md, line {at + 1}: should not be there: | made_up | 1 |"]
    report.write_text(text.replace(f"runs/quick/{DDP}/1", "runs/quick/elsewhere", 1))
    (told,) = check_report(path=report)
    assert "elsewhere" in told and f"runs/quick/{DDP}/1" in told
    report.write_text(text)
    (report.parent / "plots" / "throughput.png").write_bytes(PNG[:-1] + b"\x83")
    plots_changed = report.parent / "plots" / "throughput.png"
    from PIL import Image

    Image.new("RGB", (2, 2), "red").save(plots_changed)
    assert [re.sub(r"line \d+", "line", line) for line in check_report(path=report)] == [
        f"{name}, line: has a picture, the results say another one: that in plots/" for name in ("report.html", "report.zh.html")
    ]


def test_another_profile_s_report_is_not_this_one_s(report):
    put(DDP, label="classroom")
    assert any("Profile quick" in line for line in check_report("classroom", path=report))


def test_without_a_report_or_results_it_says_what_to_do(report, tmp_path):
    with pytest.raises(OSError, match=r"holds no results.*labkit report --profile classroom"):
        check_report("classroom", path=report)
    with pytest.raises(OSError, match=r"no report to check.*labkit report --profile quick"):
        check_report(path=tmp_path / "elsewhere" / "report.md")


def test_the_command_has_an_exit_code(report, labkit):
    folder = folders.runs_folder() / "quick" / "report"
    write_report()
    said = labkit("check")
    assert said == (0, f"{folder}: report.md, report.html, report.zh.md, report.zh.html: as the results say\n", "")
    spoil(folder / "report.md", "| 1200.0 |", "| 1300.0 |")
    said = labkit("check")
    assert said.code == 1 and "has 1300.0, the results say 1200.0" in said.out and said.out.count("\n") == 1
    said = labkit("check", "--rewrite")
    assert said.code == 0 and "has 1300.0" in said.out and "written again" in said.out and labkit("check").code == 0
    for path in report_files(folder / "report.md"):
        path.unlink()
    said = labkit("check")
    assert (said.code, said.out) == (1, "") and "no report to check" in said.err


def test_checking_draws_nothing_and_loads_no_torch():
    code = "import sys, labkit.report.check; print([m for m in ('matplotlib', 'torch', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_a_bar_within_a_cell_ends_no_cell():
    lines = ["| row | note |", "|---|---|", r"| a | one \| two |"]
    told = compare("\n".join(lines), "\n".join([*lines[:2], r"| a | one \| three |"]))
    assert told == [r"line 3, a, note: has one \| two, the results say one \| three"]
