"""Rank agreement over all rows: figures that can be worked out by hand, scipy's where it is there, and like compared with like."""

import random
from dataclasses import replace

import pytest

from labkit.report.source import from_folders
from labkit.report.view import Found
from labkit.results.ranks import FEWEST, agreement, kendall, ranks, spearman
from labkit.rows.params import published
from labkit.rows.spec import Spec
from tests.helpers import promised
from tests.helpers.made_up import CPU, GPUS, put, put_thrice, use, written

THERE = {row["experiment"]: row for row in published()}


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch, tmp_path):
    from labkit.plots import overviews as plots

    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(plots, "save_plots", lambda *_: [])
    use(monkeypatch, CPU)


def found(tmp_path):
    return {line["figure"]: line for line in agreement(Found(from_folders("quick", {}), tmp_path).rows)}


def test_ranks_by_hand():
    assert ranks([10.0, 30.0, 20.0, 30.0]) == [1, 3.5, 2, 3.5]
    assert spearman([1, 2, 3], [10, 20, 40]) == 1 and spearman([1, 2, 3], [3, 2, 1]) == -1
    assert kendall([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert kendall([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / 6**0.5)
    assert spearman([1, 1, 1], [1, 2, 3]) is None is kendall([1, 1, 1], [1, 2, 3])


def test_ranks_are_scipy_s():
    stats = promised.module("scipy.stats")
    rng = random.Random(0)
    for n in (4, 10, 21):
        one, two = ([float(rng.randrange(8)) for _ in range(n)] for _ in "ab")
        assert spearman(one, two) == pytest.approx(stats.spearmanr(one, two).statistic)
        assert kendall(one, two) == pytest.approx(stats.kendalltau(one, two).statistic)


def test_the_published_figures_agree_with_themselves(tmp_path, monkeypatch):
    use(monkeypatch, GPUS)
    for name, row in THERE.items():
        put_thrice(name, row["avg_throughput_img_s"], row["best_acc_pct"], row["max_gpu_mem_mb"])
    lines = found(tmp_path)
    for figure in ("images_per_s", "max_mem_mib"):
        line = lines[figure]
        assert (line["n"], line["spearman"], line["kendall"], line["level"]) == (23, "+1.00", "+1.00", "mostly")
    line = lines["best_acc_pct"]  # 74.87, 74.80, 74.77, ...: most pairs differ by less than chance
    assert (line["n"], line["spearman"], line["kendall"], line["level"]) == (23, None, None, "untold")
    for line in lines.values():
        assert line["pairs"] == 23 * 22 // 2 == sum(line["kinds"].values())
        assert line["kinds"]["opposite"] == line["kinds"]["untold"] == 0
    assert "over 23 rows the order is mostly the published one" in written(tmp_path)


def test_the_order_turned_round(tmp_path):
    names = [name for name in THERE if name.startswith(("single", "dp_", "model"))]
    for name in names:
        put_thrice(name, 1e6 / THERE[name]["avg_throughput_img_s"])
    line = found(tmp_path)["images_per_s"]
    assert (line["n"], line["spearman"], line["level"]) == (len(names), "−1.00", "reversed") and line["kinds"]["same"] == 0
    assert found(tmp_path)["best_acc_pct"]["level"] == "unknown", "all are equal here"
    assert "the order tends to be the reverse of the published one" in written(tmp_path)


def test_gloo_is_not_ranked_among_nccl(tmp_path):
    """A Gloo row that stands for an NCCL row is taken beside it; one that stands for none, and has only a Gloo figure, is left out."""
    for name in THERE:
        if "_nccl_" not in name and "ps_gpu" not in name:
            put(name, THERE[name]["avg_throughput_img_s"])
    put("ddp_gloo_resnet18_bs64x2_cacheFalse_ampFalse", 2000.0)
    line = found(tmp_path)["images_per_s"]
    gloo = [name for name in THERE if Spec.parse(name).backend == "gloo" and "_gloo_" in name]
    here = [name for name in THERE if "_nccl_" not in name and "ps_gpu" not in name]
    assert len(gloo) == 2 and line["n"] == len(here) + 1, "both published Gloo rows stand for NCCL rows"


def test_few_rows_have_no_order(tmp_path):
    for name in [name for name in THERE if name.startswith("single")][: FEWEST - 1]:
        put_thrice(name, THERE[name]["avg_throughput_img_s"])
    line = found(tmp_path)["images_per_s"]
    assert (line["n"], line["spearman"], line["level"]) == (FEWEST - 1, None, "unknown")
    assert "3 rows that can be compared, too few or too equal for an order" in written(tmp_path)


def test_an_order_that_most_pairs_do_not_carry_is_not_told(tmp_path):
    """One training of each row: whatever the correlation is, no pair was measured three times."""
    for name in [name for name in THERE if name.startswith(("single", "dp_", "model"))]:
        put(name, THERE[name]["avg_throughput_img_s"])
    line = found(tmp_path)["images_per_s"]
    assert line["level"] == "untold" and line["kinds"]["untold"] == line["pairs"]
    assert line["spearman"] is None and line["kendall"] is None, "a number would be read all the same"
    assert "the order is **too noisy to tell**" in written(tmp_path)


@pytest.mark.parametrize(("bf16", "noted"), [(False, True), (True, False), (None, False)])
def test_rows_that_imitate_bf16_are_named(tmp_path, monkeypatch, bf16, noted):
    use(monkeypatch, replace(CPU, bf16=bf16))
    for amp in (False, True):
        put(f"single_gpu_resnet18_bs256_cacheTrue_amp{amp}")
    text = written(tmp_path)
    assert ("with bf16 instructions: `single_gpu_resnet18_bs256_cacheTrue_ampTrue`." in text) is noted
