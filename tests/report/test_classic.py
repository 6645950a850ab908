"""The three sections of the published report, in full, from two results; and the whole report begins with them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.plots import overviews
from labkit.report.write import write_report
from labkit.rows import params
from tests.helpers.command_line import Said, one_line
from tests.helpers.made_up import CPU, GPUS, cells, put, use
from tests.helpers.report_pages import Page

CHINESE = """\
# 分布式训练实验报告

## 实验结果汇总

| Experiment | Model | Batch Size | Best Acc (%) | Avg Throughput | Max GPU Mem (MB) | Total Time (s) |
| --- | --- | ---: | ---: | ---: | ---: | ---: |
| ddp_nccl_resnet34_bs256x2_cacheFalse_ampFalse | resnet34 | 512 | 72.49 | 2095.9 | 2259 | 10.0 |
| single_gpu_resnet18_bs256_cacheTrue_ampTrue | resnet18 | 256 | 56.23 | 1786.8 | 729 | 10.0 |

## 分组实验说明

| 组别 | 实验内容 | 对比项 |
| --- | --- | --- |
| Group1 | 单卡 vs 多卡 | 单卡、DP、DDP |
| Group2 | 通信后端 | NCCL 与 Gloo |
| Group3 | 并行策略 | DDP、ModelParallel、FSDP |
| Group4 | 缓存效果 | 缓存开 / 关 |
| Group5 | 混合精度 | AMP 开 / 关 |
| Group6 | 批次大小 | 每进程 BS=64、128、256 |
| Group7 | 模型对比 | ResNet18、34、50 |
| Group8 | 最优配置 | 基线与 Cache+AMP |
| Group9 | 批次大小 | BS=128、256、512 |
| Group10 | 模式对比 | PS 与 Collective |

## 图表位置

所有图表都在 `./plots/` 目录中。
"""
ENGLISH = """\
# Distributed training experiment report

## Summary of results

| Experiment | Model | Batch Size | Best Acc (%) | Avg Throughput | Max GPU Mem (MB) | Total Time (s) |
| --- | --- | ---: | ---: | ---: | ---: | ---: |
| ddp_nccl_resnet34_bs256x2_cacheFalse_ampFalse | resnet34 | 512 | 72.49 | 2095.9 | 2259 | 10.0 |
| single_gpu_resnet18_bs256_cacheTrue_ampTrue | resnet18 | 256 | 56.23 | 1786.8 | 729 | 10.0 |

## The groups

| Group | Topic | Compares |
| --- | --- | --- |
| Group1 | One GPU against several | Single GPU, DP, DDP |
| Group2 | Communication backend | NCCL vs Gloo |
| Group3 | Parallel strategy | DDP vs ModelParallel vs FSDP |
| Group4 | Effect of the data cache | cache on / off |
| Group5 | Mixed precision | AMP on / off |
| Group6 | Batch size (DDP) | BS=64, 128, 256 per rank |
| Group7 | Model | ResNet18, 34, 50 |
| Group8 | Best configuration | baseline vs Cache+AMP |
| Group9 | Batch size (one GPU) | BS=128, 256, 512 |
| Group10 | Parameter server against collectives | PS vs Collective |

## Where the plots are

All plots lie in `./plots/`.
"""
NAMES = ["report.classic.md", "report.classic.html", "report.classic.zh.md", "report.classic.zh.html"]


@pytest.fixture(autouse=True)
def two_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(overviews, "save_plots", lambda *_: [])
    monkeypatch.setattr(params, "ROOT", tmp_path / "lab")
    use(monkeypatch, GPUS)
    put("single_gpu_resnet18_bs256_cacheTrue_ampTrue", 1786.84, 56.2349, 729.4)
    put("ddp_nccl_resnet34_bs256x2_cacheFalse_ampFalse", 2095.9, 72.49, 2259)
    return tmp_path / "runs/quick/report"


def test_the_classic_report_in_full(two_results: Path, labkit: Callable[..., Said]) -> None:
    said = labkit("report", "--classic")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [str(two_results / name) for name in NAMES]
    assert (two_results / NAMES[0]).read_text(encoding="utf-8") == ENGLISH
    assert (two_results / NAMES[2]).read_text(encoding="utf-8") == CHINESE


@pytest.mark.parametrize(("name", "markdown"), [(NAMES[1], ENGLISH), (NAMES[3], CHINESE)])
def test_the_page_says_the_same(two_results: Path, labkit: Callable[..., Said], name: str, markdown: str) -> None:
    labkit("report", "--classic")
    page = (two_results / name).read_text(encoding="utf-8")
    assert Page(page).links == [] and Page(page).ids == ["results", "groups", "plots"]
    found = [re.sub("<[^>]*>", "", cell) for cell in re.findall("<t[dh][^>]*>(.*?)</t[dh]>", page)]
    assert found == [cell for line in cells(markdown) for cell in line if not re.fullmatch("-+:?", cell)]
    headings = re.findall("<h[12][^>]*>(.*?)</h[12]>", page)
    assert headings == re.findall("^#+ (.*)", markdown, re.M)


@pytest.mark.parametrize(("language", "classic", "name"), [("en", ENGLISH, "report.md"), ("zh", CHINESE, "report.zh.md")])
def test_the_whole_report_begins_with_it(two_results: Path, language: str, classic: str, name: str) -> None:
    """But for the links of the names; and what is ours comes after."""
    assert write_report(languages=[language])[0] == two_results / name
    text = (two_results / name).read_text(encoding="utf-8")
    unlinked = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    assert unlinked.startswith(classic)
    after = unlinked.removeprefix(classic)
    assert after.startswith("\n## About this report\n\nEnglish" if language == "en" else "\n## 关于本报告\n\n中文")


def test_on_a_cpu_the_column_of_memory_says_what_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use(monkeypatch, CPU)
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "cpu"))
    put("single_gpu_resnet18_bs256_cacheTrue_ampTrue")
    (text, _) = (path.read_text(encoding="utf-8") for path in write_report(classic=True, languages=["zh"]))
    assert cells(text)[0][5] == "Max Mem (MiB；CPU：进程常驻内存峰值的增量)"


def test_one_language_and_a_folder(labkit: Callable[..., Said], tmp_path: Path) -> None:
    said = labkit("report", "--classic", "--lang", "zh", "--folder", str(tmp_path / "there"))
    assert said.out.splitlines() == [str(tmp_path / "there" / name) for name in NAMES[2:]]


def test_in_a_clone_it_is_made_from_the_published_results(
    two_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labkit: Callable[..., Said]
) -> None:
    """Nothing is trained; without any results there is nothing to write."""
    write_report(publish=True)
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "clone"))
    said = labkit("report", "--classic", "--lang", "zh")
    assert said.err.endswith("holds no results; the figures are those of the committed report\n")
    assert (said.code, said.out.splitlines()[0]) == (0, str(tmp_path / "clone/quick/report" / NAMES[2]))
    assert Path(said.out.splitlines()[0]).read_text(encoding="utf-8") == CHINESE
    one_line(labkit("report", "--classic", "--profile", "tiny"), 1, "the report of --profile quick, not of --profile tiny")
    (tmp_path / "lab/report.results.json").unlink()
    one_line(labkit("report", "--classic"), 1, "holds no results; `labkit report --profile quick` trains the rows")
