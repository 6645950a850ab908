"""Groups, profiles and the plan: what params/ says, what of it a machine can run, and what is refused before anything starts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit import Spec, SpecError, params, runs
from labkit.machine import Machine
from labkit.params import all_names, group, groups, profile, profile_names, published, read_group
from labkit.spec import SCALE_FIELDS

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
DDP_NCCL = "ddp_nccl_resnet18_bs128x2_cacheFalse_ampFalse"
DDP_GLOO = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"
PS_GPU = "ps_gpu_mode_resnet18_bs128_workers2"
SINGLE = "single_gpu_resnet18_bs256_cacheFalse_ampFalse"


def refused(call: Callable[[], Any], *words: Any) -> None:
    """`call` raises SpecError; its message is one line and holds these words."""
    with pytest.raises(SpecError) as caught:
        call()
    for word in words:
        assert str(word) in str(caught.value), f"{word!r} is not in: {caught.value}"
    assert "\n" not in str(caught.value)


# -- the files that are there -------------------------------------------------------------------------------------------


def test_groups_are_the_published_ones() -> None:
    assert [(one.number, one.title_zh) for one in groups()] == [(number, zh) for number, zh, _, _ in TITLES]
    for one, (number, _, *words) in zip(groups(), TITLES, strict=True):
        assert all(word in one.title_en.lower() for word in words), one.title_en
        assert one.file.name.startswith(f"{number:02}_"), f"{one.file.name} holds group {number}"
        assert len(re.findall("[一-鿿]", one.claim_zh)) > 30, f"{one.file.name}: claim_zh says the same in Chinese"
        assert len(one.claim.split()) > 10, f"{one.file.name}: the claim says what the group tests, in a sentence"
        assert one.file.read_text().startswith("claim:"), f"{one.file.name}: the claim comes first"
        assert group(number) is one


def test_the_published_table_of_groups_says_what_each_compares() -> None:
    assert params.compares().keys() == {one.number for one in groups()}
    assert params.compares()[3] == {"compares": "DDP vs ModelParallel vs FSDP", "compares_zh": "DDP、ModelParallel、FSDP"}
    assert all(all(told.values()) for told in params.compares().values())


def test_every_profile_has_a_sentence_in_both_languages() -> None:
    for name in profile_names():
        assert re.search("[一-鿿]", profile(name).about_zh) and not re.search("[一-鿿]", profile(name).about)


def test_every_published_row_is_in_a_group() -> None:
    assert {row["experiment"] for row in published()} - set(all_names()) == set()


def test_every_strategy_has_a_row_and_every_row_a_strategy() -> None:
    files = {path.stem for path in Path(params.__file__).parent.glob("strategies/*.py")} - {"__init__"}
    assert {Spec.parse(name).strategy for name in all_names()} == files


def test_a_row_of_several_groups_is_one_row() -> None:
    assert len(set(all_names())) == len(all_names()) < sum(len(one.rows) for one in groups())


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_can_start_every_row(name: str) -> None:
    assert set(profile(name).fields) <= set(SCALE_FIELDS)
    assert len(runs.wanted("all", name)) == len(all_names())


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
    (own_params / "11_mine.yaml").write_text(
        "\n".join({**GROUP, "group": "group: 11", "rows": f"rows:\n  - {DDP_GLOO}+norm=group"}.values())
    )
    assert "mine" in profile_names() and profile("mine").about_zh == "mine"  # no Chinese sentence: the English one
    assert [spec.epochs for spec in runs.wanted(11, "mine")] == [3]


def test_two_files_for_one_group(own_params: Path) -> None:
    shutil.copy(own_params / "07_model.yaml", own_params / "17_model.yaml")
    refused(lambda: params.groups(), "17_model.yaml", "group: 7 is taken by 07_model.yaml")


# -- the plan -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes this a machine with so many CUDA devices."""

    def become(devices: int) -> None:
        machine = Machine(cpu="some", cores=4, memory_gib=8, cuda=("some GPU",) * devices, system="Linux x86_64")
        monkeypatch.setattr(runs, "this_machine", lambda: machine)

    return become


def by_name(planned: list[runs.Planned]) -> dict[str, runs.Planned]:
    assert len({row.name for row in planned}) == len(planned), "a row is planned once"
    return {row.name: row for row in planned}


def test_without_cuda_nccl_rows_run_as_gloo_under_the_gloo_name(on_machine: Callable[[int], None]) -> None:
    on_machine(0)
    rows = by_name(runs.plan("all"))
    nccl = [name for name in all_names() if "_nccl_" in name]
    assert len(nccl) == 9
    for name in nccl:
        twin = name.replace("_nccl_", "_gloo_")
        assert rows[name].spec is None and "needs CUDA" in rows[name].reason and twin in rows[name].reason
        assert rows[twin].stands_for == [name]
        assert rows[twin].spec.backend == "gloo" and rows[twin].spec.device == "cpu"
    assert rows[PS_GPU].spec is None and "needs CUDA for its server" in rows[PS_GPU].reason
    for name in set(all_names()) - set(nccl) - {PS_GPU}:
        assert rows[name].spec.device == "cpu" and rows[name].reason == ""
    assert {name for row in rows.values() for name in row.stands_for} == set(nccl)


def test_a_row_that_is_asked_for_twice_is_planned_once(on_machine: Callable[[int], None]) -> None:
    on_machine(0)
    rows = by_name(runs.plan([1, "2", DDP_NCCL, [DDP_NCCL, 1]]))
    assert rows[DDP_GLOO].stands_for == [DDP_NCCL]


def test_one_cuda_device(on_machine: Callable[[int], None]) -> None:
    on_machine(1)
    rows = by_name(runs.plan("all"))
    for name, row in rows.items():
        if Spec.parse(name).strategy == "single":
            assert row.spec.device == "cuda"
        else:
            assert row.spec is None and row.reason.startswith("needs 2 CUDA devices, this machine has 1"), row
    on_cpu = by_name(runs.plan("all", overrides={"device": "cpu"}))
    assert on_cpu[DDP_GLOO].stands_for == [DDP_NCCL]
    assert "device=cpu was set" in on_cpu[DDP_NCCL].reason
    shared = by_name(runs.plan(DDP_GLOO, overrides={"share_device": True}))
    assert (shared[DDP_GLOO].spec.device, shared[DDP_GLOO].spec.backend) == ("cuda", "gloo")


def test_two_cuda_devices_run_every_published_row_under_its_own_name(on_machine: Callable[[int], None]) -> None:
    on_machine(2)
    rows = by_name(runs.plan([row["experiment"] for row in published()], "reference"))
    assert list(rows) == [row["experiment"] for row in published()]
    for name, row in rows.items():
        assert row.spec is not None and row.spec.name == name and row.spec.device == "cuda" and not row.stands_for
        assert ("nccl" in name) <= (row.spec.backend == "nccl")
        assert ("gloo" in name) <= (row.spec.backend == "gloo")


def test_reference_profile_without_cuda(on_machine: Callable[[int], None]) -> None:
    on_machine(0)
    for row in runs.plan("all", "reference"):
        assert row.spec is None and "needs CUDA" in row.reason


def test_threads_are_the_cores_shared_out(on_machine: Callable[[int], None]) -> None:
    on_machine(0)
    rows = by_name(runs.plan([SINGLE, DDP_GLOO]))
    assert (rows[SINGLE].spec.threads_per_rank, rows[DDP_GLOO].spec.threads_per_rank) == (4, 2)
    assert runs.plan(DDP_GLOO, overrides={"threads_per_rank": 3})[0].spec.threads_per_rank == 3


def test_a_spec_stands_as_it_is(on_machine: Callable[[int], None]) -> None:
    """A profile fills in the scale of a name; a Spec has one already, alone or in a list."""
    on_machine(0)
    spec = Spec(epochs=77)
    assert runs.plan(spec)[0].spec.epochs == runs.plan([spec])[0].spec.epochs == 77
    assert runs.plan(spec.name)[0].spec.epochs == profile("quick").fields["epochs"]


def test_row_fields_can_be_set_and_change_the_name(on_machine: Callable[[int], None]) -> None:
    on_machine(0)
    assert runs.plan(DDP_GLOO, overrides={"world_size": 4, "amp": True})[0].name == "ddp_gloo_resnet18_bs128x4_cacheFalse_ampTrue"


# -- bad input starts nothing -------------------------------------------------------------------------------------------


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import multiprocessing.process

    from labkit import launch

    def fail(*args: Any, **kwargs: Any) -> None:
        pytest.fail("a process was started")

    for name in ("warm", "launch"):
        monkeypatch.setattr(launch, name, fail)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", fail)
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))


@pytest.mark.parametrize(
    ("rows", "arguments", "words"),
    [
        ("../x", {}, ("'../x'", "labkit rows")),
        ("../../etc", {}, ("'../../etc'", "labkit rows")),
        (11, {}, ("group 11", "known: 1, 2")),
        (["all", "nope"], {}, ("'nope'", "labkit rows")),
        (1, {"profile": "quik"}, ("'quik'", "did you mean 'quick'?")),
        (1, {"profile": "../profiles/quick"}, ("'../profiles/quick'", "known: classroom")),
        (1, {"repeats": 0}, ("repeats=0", "from 1 to 1000")),
        (1, {"repeats": "2"}, ("repeats='2'", "whole number")),
        (1, {"overrides": {"epoch": 3}}, ("'epoch'", "did you mean 'epochs'?")),
        (1, {"overrides": {"epochs": "3"}}, ("epochs='3'", "without quotes")),
        (1, {"overrides": {"lr": float("nan")}}, ("lr=nan", "finite")),
        (1, {"overrides": {"lr": -0.1}}, ("lr=-0.1", "more than 0")),
        (1, {"overrides": {"dataset": "fashion"}}, ("dataset='fashion'", "did you mean 'fashion_mnist'?")),
        ("ddp_gloo_resnet18_bs128x0_cacheFalse_ampFalse", {}, ("world_size=0", "at least 1")),
        ("ps_mode_resnet18_bs128_workers1000", {}, ("world_size=1000", "at most 63")),
        ("dp_resnet18_bs255_ngpu2_cacheFalse_ampFalse", {}, ("255", "divisor")),
        ("model_parallel_resnet18_bs256_cacheFalse", {"overrides": {"micro_batches": 3}}, ("micro_batches=3", "divisor")),
        ([DDP_GLOO, DDP_NCCL], {"overrides": {"backend": "nccl"}}, ("backend=nccl", "no CUDA here", "use backend=gloo")),
        (DDP_GLOO, {"overrides": {"train_samples": 100}}, ("batch_per_rank=128", "256 images", "more train_samples")),
        (DDP_GLOO, {"overrides": {"test_samples": 10**6}}, ("test_samples=1000000", "digits has 360", "0 for all")),
    ],
)
def test_bad_input_starts_no_process(
    no_process: None,
    on_machine: Callable[[int], None],
    tmp_path: Path,
    rows: Any,
    arguments: dict[str, Any],
    words: tuple[str, ...],
) -> None:
    on_machine(0)
    refused(lambda: labkit.run(rows, **arguments), *words)
    assert not (tmp_path / "runs").exists()


def test_a_row_that_cannot_run_is_a_line_and_no_process(
    no_process: None, on_machine: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from labkit import launch

    on_machine(0)
    monkeypatch.setattr(launch, "warm", lambda *args: None)  # the fork server may warm up; nothing is launched
    frame = labkit.run(PS_GPU)
    assert list(frame["status"]) == ["needs"] and "CUDA" in frame["reason"][0]
