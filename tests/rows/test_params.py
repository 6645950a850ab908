"""The files in params/: those that are there, and how files that are not as they should be are refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from labkit import Spec
from labkit.rows import params
from labkit.rows.params import all_names, group, groups, profile, profile_names, published, read_group
from labkit.rows.spec import SCALE_FIELDS
from labkit.runs import plan
from tests.helpers.refusals import refused

TITLES = [
    (1, "单卡 vs 多卡", "gpu", "several"),
    (2, "通信后端", "communication", "backend"),
    (3, "并行策略", "parallel", "strategy"),
    (4, "缓存效果", "effect", "cache"),
    (5, "混合精度", "mixed", "precision"),
    (6, "批次大小", "batch size", "ddp"),
    (7, "模型对比", "model", "model"),
    (8, "最优配置", "best", "configuration"),
    (9, "批次大小", "batch size", "one gpu"),
    (10, "模式对比", "server", "collective"),
]
DDP_GLOO = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"
SINGLE = "single_gpu_resnet18_bs256_cacheFalse_ampFalse"


# -- the files that are there -------------------------------------------------------------------------------------------


def test_groups_are_the_published_ones() -> None:
    """And a group of one's own comes after them."""
    published = groups()[: len(TITLES)]
    assert [(one.number, one.title_zh) for one in published] == [(number, zh) for number, zh, _, _ in TITLES]
    for one, (_, _, *words) in zip(published, TITLES, strict=True):
        assert all(word in one.title_en.lower() for word in words), one.title_en


def test_every_group_says_what_it_tests() -> None:
    for one in groups():
        number = one.number
        assert one.file.name.startswith(f"{number:02}_"), f"{one.file.name} holds group {number}"
        assert len(re.findall("[一-鿿]", one.claim_zh)) > 30, f"{one.file.name}: claim_zh says the same in Chinese"
        assert len(one.claim.split()) > 10, f"{one.file.name}: the claim says what the group tests, in a sentence"
        assert one.file.read_text().startswith("claim:"), f"{one.file.name}: the claim comes first"
        assert group(number) is one


def test_the_published_table_of_groups_says_what_each_compares() -> None:
    """Of a group that has no line there, the report tells the rows."""
    assert {number for number, *_ in TITLES} <= params.compares().keys() <= {one.number for one in groups()}
    assert params.compares()[3] == {"compares": "DDP vs ModelParallel vs FSDP", "compares_zh": "DDP、ModelParallel、FSDP"}
    assert all(all(told.values()) for told in params.compares().values())


def test_every_profile_has_a_sentence_in_both_languages() -> None:
    for name in profile_names():
        assert re.search("[一-鿿]", profile(name).about_zh) and not re.search("[一-鿿]", profile(name).about)


def test_every_published_row_is_in_a_group() -> None:
    assert {row["experiment"] for row in published()} - set(all_names()) == set()


def test_every_strategy_has_a_row_and_every_row_a_strategy() -> None:
    files = {path.stem for path in (params.ROOT / "labkit/strategies").glob("*.py")} - {"__init__"}
    assert {Spec.parse(name).strategy for name in all_names()} == files


def test_a_row_of_several_groups_is_one_row() -> None:
    assert len(set(all_names())) == len(all_names()) < sum(len(one.rows) for one in groups())


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_can_start_every_row(name: str) -> None:
    assert set(profile(name).fields) <= set(SCALE_FIELDS)
    assert {row.name for row in plan.plan("all", name)} >= set(all_names())


def test_profiles_are_the_four() -> None:
    assert profile_names() == ["classroom", "quick", "reference", "tiny"]
    assert [profile(name).fields["dataset"] for name in profile_names()] == ["fashion_mnist", "digits", "cifar100", "digits"]


# -- files that are not as they should be -------------------------------------------------------------------------------

GROUP = {
    "claim": "claim: Some claim.",
    "claim_zh": "claim_zh: 一个论断。",
    "group": "group: 1",
    "title_en": "title_en: One",
    "title_zh": "title_zh: 一",
    "rows": f"rows:\n  - {SINGLE}",
}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"group": "group: '1'"}, ("group: '1'", "whole number, without quotes")),
        ({"group": "group: true"}, ("group: True", "whole number")),
        ({"group": "group: 1.5"}, ("group: 1.5", "whole number")),
        ({"title_en": "title_en: 5"}, ("title_en: 5", "must be a text")),
        ({"rows": f"rows: {SINGLE}"}, ("rows:", SINGLE, "must be a list")),
        ({"rows": "rows: []"}, ("rows: is empty", "name at least one")),
        ({"rows": "rows:"}, ("rows: None", "must be a list")),
        ({"rows": "rows:\n  - 7"}, ("rows: 7", "name of a row")),
        ({"rows": "rows:\n  - ../x"}, ("rows: '../x'", "labkit rows")),
        ({"rows": f"rows:\n  - {SINGLE[:-1]}"}, (SINGLE[:-1], f"did you mean '{SINGLE}'?")),
        ({"rows": f"rows:\n  - {SINGLE}\n  - {SINGLE}"}, (SINGLE, "twice")),
        ({"rows": "rows:\n  - ddp_gloo_resnet18_bs128x0_cacheFalse_ampFalse"}, ("world_size=0", "at least 1")),
        ({"claim": "clam: Some claim."}, ("'clam'", "did you mean 'claim'?")),
        ({"epochs": "epochs: 3"}, ("'epochs'", "known: group, claim")),
        ({"claim": ""}, ("'claim' is missing", "add a line")),
        ({"title_zh": ""}, ("'title_zh' is missing", "add a line")),
        ({"claim_zh": ""}, ("'claim_zh' is missing", "add a line")),
        ({"group": "group: [1"}, ("not readable as YAML", "line")),
        ({"group": "\tgroup: 1"}, ("not readable as YAML", "line 3")),
        ({"claim": "claim: 2024-13-45"}, ("not readable as YAML",)),
    ],
)
def test_bad_group_file(tmp_path: Path, changed: dict[str, str], words: tuple[str, ...]) -> None:
    file = tmp_path / "01_x.yaml"
    file.write_text("\n".join({**GROUP, **changed}.values()), encoding="utf-8")
    refused(lambda: read_group(file), file, *words)


def test_good_group_file(tmp_path: Path) -> None:
    file = tmp_path / "01_x.yaml"
    file.write_text("\n".join(GROUP.values()), encoding="utf-8")
    assert read_group(file).rows == (SINGLE,)


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "NoneType"), (b"- 1", "list"), (b"\xff\xfe\xff", "not readable"), (b"abc", "str")]
)
def test_files_that_hold_no_keys(tmp_path: Path, content: bytes, word: str) -> None:
    file = tmp_path / "01_x.yaml"
    file.write_bytes(content)
    refused(lambda: read_group(file), file, word)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    refused(lambda: read_group(tmp_path / "no.yaml"), tmp_path / "no.yaml", "cannot be read", "No such file")
    (tmp_path / "folder.yaml").mkdir()
    refused(lambda: read_group(tmp_path / "folder.yaml"), tmp_path / "folder.yaml", "cannot be read", "directory")


@pytest.fixture
def own_params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of params/ to spoil."""
    folder = tmp_path / "params"
    shutil.copytree(params.PARAMS, folder)
    monkeypatch.setattr(params, "PARAMS", folder)
    groups.cache_clear()
    monkeypatch.setattr(params, "groups", groups.__wrapped__)
    yield folder
    groups.cache_clear()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs: '3'", ("epochs='3'", "without quotes")),
        ("epochs: 0", ("epochs=0", "at least 1")),
        ("lr: .nan", ("lr=nan", "finite")),
        ("lr: -1", ("lr=-1", "more than 0")),
        ("augment: 1", ("augment=1", "true or false")),
        ("dataset: mnits", ("dataset='mnits'", "known: digits")),
        ("epoch: 3", ("'epoch'", "did you mean 'epochs'?")),
        ("world_size: 4", ("'world_size'", "belongs to a row")),
        ("batch_per_rank: 4", ("'batch_per_rank'", "belongs to a row")),
        ("? [1]\n: 2", ("not readable as YAML",)),
    ],
)
def test_bad_profile_file(own_params: Path, text: str, words: tuple[str, ...]) -> None:
    file = own_params / "profiles" / "mine.yaml"
    file.write_text(f"about: mine\n{text}\n")
    refused(lambda: profile("mine"), file, *words)


def test_profile_without_a_word_on_itself(own_params: Path) -> None:
    for text, word in (("epochs: 3\n", "missing"), ("about: 5\n", "5"), ("about: mine\nabout_zh: 5\n", "about_zh")):
        (own_params / "profiles" / "mine.yaml").write_text(text)
        refused(lambda: profile("mine"), own_params / "profiles" / "mine.yaml", "about", word, "sentence")


def test_own_profile_and_group_are_found(own_params: Path) -> None:
    (own_params / "profiles" / "mine.yaml").write_text("about: mine\nepochs: 3\n")
    (own_params / "77_mine.yaml").write_text(
        "\n".join({**GROUP, "group": "group: 77", "rows": f"rows:\n  - {DDP_GLOO}+norm=group"}.values())
    )
    assert "mine" in profile_names() and profile("mine").about_zh == "mine"  # no Chinese sentence: the English one
    assert [spec.epochs for spec in [row.spec for row in plan.plan(77, "mine").runnable]] == [3]


def test_two_files_for_one_group(own_params: Path) -> None:
    shutil.copy(own_params / "07_model.yaml", own_params / "17_model.yaml")
    refused(lambda: params.groups(), "17_model.yaml", "group: 7 is taken by 07_model.yaml")
