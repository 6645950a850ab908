"""The report tells what lies in the result folders: no more, no less, and nothing under another row's name."""

import os
import re
import warnings
from pathlib import Path
from urllib.parse import unquote

import pytest

from labkit.plots import overviews as plots
from labkit.report.words import plain
from labkit.report.write import write_report
from labkit.results import table
from labkit.results.table import read_results
from labkit.rows.kinds import STRATEGIES, kind_of
from labkit.rows.params import groups, published
from labkit.runs import plan
from labkit.runs.result import Result
from tests.helpers.made_up import CPU, GPUS, cells, put, put_all, put_rounds, put_thrice, rows_now, section, use, verdict, written

SINGLE = "single_gpu_resnet18_bs{}_cacheFalse_ampFalse"
DDP = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"
COLLECTIVE = "collective_gloo_resnet18_bs128x2"
SAVE_PLOTS = plots.save_plots
GONE = 2**22 + 1  # no process has this id


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(plots, "save_plots", lambda *_: [])  # drawing takes seconds: only where a test is about it
    use(monkeypatch, CPU)


@pytest.fixture
def drawn(monkeypatch):
    monkeypatch.setattr(plots, "save_plots", SAVE_PLOTS)


def test_made_up_results_have_the_form_of_real_ones(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(plots, "save_plots", lambda *_: [])
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    overrides = {"epochs": 1, "width": 8, "train_samples": 512, "test_samples": 100, "device": "cpu"}
    name = SINGLE.format(128)
    assert list(table.run(name, overrides=overrides).status) == ["ok"]
    label = plan.plan(name, "quick", overrides).label
    put(name, repeat=2, label=label)
    real, made_up = read_results(label)[name]
    assert isinstance(real, Result) and isinstance(made_up, Result)
    assert real.to_json().keys() == made_up.to_json().keys()
    text = written(tmp_path, overrides=overrides)
    assert f"{real.best_acc_pct:.2f}" in text and "512 training and 100 test images" in text and "--set epochs=1" in text


def test_the_table_has_the_published_form(tmp_path):
    put(SINGLE.format(128), 1200.04, 91.234, 100.4)
    put(SINGLE.format(256), 2000.0)
    put(DDP, 1500.0)
    header, _, *lines = cells(section(written(tmp_path), "Summary of results"))
    memory = "Max Mem (MiB; CPU: growth of peak resident set)"
    assert header == ["Experiment", "Model", "Batch Size", "Best Acc (%)", "Avg Throughput", memory, "Total Time (s)"]
    assert [line[4] for line in lines] == ["2000.0", "1500.0", "1200.0"]
    assert lines[1][2] == "256" and lines[2][1:] == ["resnet18", "128", "91.23", "1200.0", "100", "10.0"]


def test_repeats_are_shown_as_median_and_range(tmp_path):
    for repeat, rate in enumerate((900.0, 1000.0, 1300.0), 1):
        put(DDP, rate, 90.0, repeat=repeat)
    text = written(tmp_path)
    assert "| 90.00 | 1000.0 (900.0–1300.0) | 100 | 10.0 |" in text and "Repeats: 3; figures are medians" in text


def test_every_group_is_there_and_every_link_leads_somewhere(tmp_path):
    put_all()
    put(DDP, repeat=2, status="failed", reason="rank 1 died")
    text = written(tmp_path)
    for group in groups():
        assert f"### {group.number}. {group.title_en} · {group.title_zh}\n\n> {plain(group.claim)}" in text
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 60 and [link for link in links if not (tmp_path / unquote(link)).exists()] == []
    assert any(link.endswith(f"{DDP}/2") for link in links)


def test_rows_that_cannot_run_say_what_they_need_and_gloo_never_has_nccl_s_name(tmp_path):
    put_all()
    text = written(tmp_path)
    absent = {line[0]: line[1:] for line in cells(section(text, "Rows that did not run here"))[2:]}
    assert absent[DDP.replace("gloo", "nccl")] == ["cannot run here", f"needs CUDA, this machine has none; see {DDP}"]
    assert len(absent) == 10 and "needs CUDA for its server" in absent["ps_gpu_mode_resnet18_bs128_workers2"][1]
    assert not re.search(r"\[[^]]*nccl", text)  # no link, and only what ran is linked
    results = section(text, "Summary of results")
    assert f"{DDP}/1) † |" in results and "† Also stands for the NCCL row" in section(text, "About this report")
    assert all("nccl" not in line[0] for group in groups() for line in cells(section(text, f"{group.number}. ")))


def test_nccl_rows_that_ran_stand_for_themselves(tmp_path, monkeypatch):
    use(monkeypatch, GPUS)
    put_all()
    text = written(tmp_path)
    assert "Max GPU Mem (MB)" in text and "nccl" not in section(text, "Rows that did not run")
    assert "†" not in section(text, "Summary of results") and "(NCCL)" not in text
    assert cells(section(text, "2. "))[3][0].startswith(f"[{DDP}]") and cells(section(text, "2. "))[3][2] == "0.80"
    use(monkeypatch, CPU)  # the same folders, read on a laptop
    text = written(tmp_path)
    assert (
        "another machine" in text
        and f"[{DDP.replace('gloo', 'nccl')}]" in text
        and "†" not in section(text, "Summary of results")
    )
    assert "nccl" not in section(text, "Rows that did not run")


def test_ratios_are_to_the_first_row_that_ran_here_and_there(tmp_path):
    put_thrice(SINGLE.format(128), 1000.0, 90.0, 100.0)
    put_thrice(SINGLE.format(256), 1500.0, 88.5, 250.0)
    put_thrice(SINGLE.format(512), 500.0, 90.0, 100.0, spread=(0.8, 1.0, 10.0))
    lines = cells(section(written(tmp_path), "9. "))[2:]
    assert lines[0][1:] == ["1.00", "1.00", "+0.0", "+0.0", "1.00", "1.00"]
    assert lines[1][1:] == ["1.50", "1.19", "−1.5", "−0.8", "2.50", "1.82"]
    assert lines[2][1:] == ["0.50 (0.40–5.00)", "1.18", "+0.0", "−1.6", "1.00", "3.47"]


def test_a_gloo_row_is_compared_with_gloo_where_the_whole_group_can_be(tmp_path):
    put_all()
    text = written(tmp_path)
    rate = {row["experiment"]: row["avg_throughput_img_s"] for row in published()}
    assert cells(section(text, "2. "))[3][2] == f"{rate[COLLECTIVE] / rate[DDP]:.2f}" == "0.80"
    lines, nccl = cells(section(text, "3. ")), rate[DDP.replace("gloo", "nccl")]
    assert lines[2][2] == "1.00 (NCCL)"
    assert lines[4][2] == f"{rate['fsdp_grad_resnet18_bs128x2_ampFalse'] / nccl:.2f}" == "0.88"
    assert "not every Gloo row of this group was published" in section(text, "3. ") and "(NCCL)" not in section(text, "2. ")
    assert f"`{DDP.replace('gloo', 'nccl')}` with `{DDP}`" in section(text, "2. ")
    frozen = next(line for line in cells(section(text, "4. ")) if "Frozen" in line[0])
    assert frozen[2] == frozen[4] == frozen[6] == "–" != frozen[1]


@pytest.mark.parametrize("rate, says", [(0.5, "agrees"), (2.0, "differs"), (0.98, "indistinguishable"), (0.94, "agrees")])
def test_the_verdict_follows_the_numbers(tmp_path, rate, says):
    put_thrice(DDP, 1000.0)  # published faster than the collective
    put_thrice(COLLECTIVE, 1000.0 * rate)
    found = verdict(tmp_path, 2)
    assert f"**{says}**" in found and found.count("**") == 2
    assert ("`ddp_gloo_bs128x2` was faster" in found) == (rate < 0.95)
    assert ("`collective_gloo_bs128x2` was faster than `ddp_gloo_bs128x2` (2.00 times; published 0.80)" in found) == (rate == 2.0)


def test_what_noise_or_too_few_trainings_could_have_written_is_not_told(tmp_path):
    put(DDP, 1000.0)
    put(COLLECTIVE, 900.0)
    assert verdict(tmp_path, 2).startswith("**measured fewer than three times**")
    assert verdict(tmp_path, 2, "Accuracy").startswith("**measured fewer than three times**")
    for repeat, rates in enumerate([(3000.0, 400.0), (300.0, 1800.0)], 2):
        put(DDP, rates[0], repeat=repeat)
        put(COLLECTIVE, rates[1], repeat=repeat)
    assert verdict(tmp_path, 2).startswith("**too noisy to tell**: `ddp_gloo_bs128x2` and `collective_gloo_bs128x2`")


def test_rounds_decide_over_speeds_and_are_told(tmp_path):
    """Trainings say one thing, the rounds another; then the control differs; then other programs take the cores."""
    put_thrice(DDP, 1000.0)
    put_thrice(COLLECTIVE, 500.0)
    put_rounds({DDP: 1000.0, COLLECTIVE: 3000.0}, number=1)
    assert verdict(tmp_path, 2).startswith("the order **differs**") and "3.00 times" in verdict(tmp_path, 2)
    assert "3 rounds, in which the rows were measured in turn" in section(written(tmp_path), "2. ")
    put_rounds({DDP: 1000.0, COLLECTIVE: 3000.0}, number=2, control=1.5)
    part = section(written(tmp_path), "2. ")
    assert verdict(tmp_path, 2).startswith("**too noisy to tell**") and "came out 0.67 times" in part
    put_rounds({DDP: 1000.0, COLLECTIVE: 3000.0}, number=3, busy=True)
    part = section(written(tmp_path), "2. ")
    assert verdict(tmp_path, 2).startswith("**too noisy to tell**") and "other programs used the cores meanwhile" in part
    chinese = write_report(path=tmp_path / "zh.md", languages=("zh",))[0].read_text(encoding="utf-8")
    assert chinese.count("噪声过大，无法判断") >= 2


@pytest.mark.parametrize("accuracy, says", [(88.9, "indistinguishable"), (80.0, "agrees"), (99.0, "differs")])
def test_accuracies_within_chance_are_not_told_apart(tmp_path, accuracy, says):
    put_thrice(DDP, accuracy=90.0)  # of 360 test images; published 8 points above the collective
    put_thrice(COLLECTIVE, accuracy=accuracy)
    assert f"**{says}**" in verdict(tmp_path, 2, "Accuracy")


def test_failed_and_interrupted_runs_are_told_with_their_reason(tmp_path):
    put(DDP, status="oom", reason="rank 1: a | b\n<b>`x` *y* \\| _z_")
    put(SINGLE.format(128), status="running", pid=GONE)
    put(SINGLE.format(256), 800.0)
    put(SINGLE.format(256), repeat=2, status="failed", reason="rank 0: no")
    text = written(tmp_path)
    lines = cells(section(text, "Rows that did not run here"))
    assert {len(line) for line in lines} == {3}
    told = {line[0].partition("]")[0][1:]: line[1:] for line in lines}
    assert told[DDP] == ["out of memory", r"rank 1: a \| b &lt;b&gt;\`x\` \*y\* &#92;\| \_z\_"]
    assert told[SINGLE.format(128)] == ["interrupted", "the launching process died"]
    assert told[SINGLE.format(256)] == ["failed, repeat 2", "rank 0: no"]
    assert [line[4] for line in cells(section(text, "Summary of results"))[2:]] == ["800.0"]


def test_without_results_nothing_is_shown(tmp_path, drawn):
    text = written(tmp_path)
    assert "Nothing has run yet" in text and "None yet." in text and "Comparison with" not in text and "plots/" not in text
    assert "not run yet | `labkit run single_gpu_resnet18_bs256_cacheFalse_ampFalse --profile quick`" in text
    assert not (tmp_path / "plots").exists()


def test_notes_name_what_should_not_be_mixed(tmp_path):
    put(SINGLE.format(128))
    put(SINGLE.format(256))
    assert "**Note.**" not in written(tmp_path)
    put(SINGLE.format(512), code="0ther", commit="def456+", others_cores=1.5, machine=GPUS.to_dict())
    put(DDP, 0.0, spec=next(row for row in plan.plan(DDP) if row.spec).spec.but(width=16, seed=1).to_dict())
    notes = "\n".join(line for line in written(tmp_path).splitlines() if "**Note.**" in line)
    for what in ("engine versions", "machines", "commits"):
        assert f"2 different {what}; not from the most frequent one: `{SINGLE.format(512)}`." in notes
    assert "2 different seeds" in notes and "| – |" in section(written(tmp_path), "Summary of results")
    assert f"profile has now: `{DDP}`" in notes and f"no steps after the warm-up: `{DDP}`" in notes
    assert "busy" not in notes  # 1.5 cores are little of 16
    put(DDP, repeat=2, others_cores=1.5)
    assert "**The machine was busy** during 1 of 5 runs: other programs took up to 1.5 cores" in written(tmp_path)
    assert "commit" in notes and "+: and changes that were not committed" in written(tmp_path)


def test_where_the_time_went_adds_up(tmp_path):
    put(DDP)
    put("ps_mode_resnet18_bs128_workers2", strategy={"pushed": 9, "applied": 9, "staleness": {"0": 2, "1": 6, "10": 1}})
    text = written(tmp_path)
    assert "| 1.00 | 6.00 | 1.50 (25 %) | 2.00 | 1.00 | 10.00 |" in text
    assert "these 2 runs took in all, 60 % was training, 20 % evaluation, 10 % start-up and 10 % the rest." in text
    assert "0 for 2 gradients, 1 for 6 gradients, 10 for 1 gradient." in text


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    put(DDP)
    before = written(tmp_path)
    put(SINGLE.format(128))

    monkeypatch.setattr(os, "replace", lambda *_: 1 / 0)  # it dies before its last step
    with pytest.raises(ZeroDivisionError):
        written(tmp_path)
    assert (tmp_path / "report.md").read_text() == before
    assert [path.name for path in tmp_path.rglob(".*")] == []


def test_same_results_same_bytes_and_no_warning(tmp_path, drawn):
    put_all()
    for n in (1, 2):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a missing glyph is a warning
            write_report(path=tmp_path / str(n) / "report.md")
    one, two = ({p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*.*")} for n in "12")
    names = {str(path) for path in one}
    assert one == two and {"report.md", "report.html", "report.zh.md", "report.zh.html", "plots/throughput.svg"} <= names
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", one[Path("report.md")].decode())
    assert len(shown) > 3 and set(shown) <= names and {"plots/throughput.png", "plots/group_04.png"} <= set(shown)
    assert all(len(content) > 10_000 for path, content in one.items() if path.suffix in (".png", ".svg"))
    assert all(content.startswith(b"\x89PNG") for path, content in one.items() if path.suffix == ".png")
    looks = [kind_of(strategy) for strategy in STRATEGIES]
    assert len({(look.colour, look.marker) for look in looks}) == len(looks), "two strategies look alike in the pictures"


@pytest.mark.parametrize("rates", [[0.0], [1.0, 1.0], [9e9, 0.0]])
def test_odd_results_can_be_drawn(tmp_path, drawn, rates):
    for name, rate in zip([DDP, SINGLE.format(128) + "+norm=group"], rates, strict=False):
        put(name, rate, accuracy=0.0, memory=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = plots.save_plots(rows_now(), tmp_path / "plots")
        assert {path.stem for path in drawn} >= plots.PLOTS.keys() and all(path.stat().st_size for path in drawn)
        written(tmp_path)
