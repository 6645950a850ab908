"""What a rank sends in a step: counted by verb, counted by the kernel, and computed by the formula. All three agree."""

import pytest
import torch
import torch.distributed as dist

from labkit.engine.counted import COUNTER, Counter, Traffic, bytes_in, sent_bytes
from labkit.engine.formula import sent_by_formula
from labkit.runs import train
from labkit.runs.folders import runs_folder

COLLECTIVE = "collective_gloo_resnet18_bs128x2"
HEADER = 48  # bytes that gloo puts before each part of a message, and of each of its own notices (gloo/transport/tcp/pair.h)
MOST_HEADERS = 12  # of one verb of gloo between two ranks: an all-reduce has twelve

# Name of the row -> what each rank sends, in sizes of the model's parameters (None: worked out in the test).
ROWS = {
    "single_gpu_resnet18_bs256_cacheTrue_ampFalse": [0.0],
    "ddp_gloo_resnet18_bs128x2_cacheTrue_ampFalse": [1.0, 1.0],
    COLLECTIVE: [1.0, 1.0],
    COLLECTIVE + "+form=ring": [1.0, 1.0],
    COLLECTIVE + "+form=flat": [1.0, 1.0],
    COLLECTIVE + "+form=buckets+bucket_mb=0.1": [1.0, 1.0],
    "fsdp_grad_resnet18_bs128x2_ampFalse": [1.5, 1.5],
    "fsdp_full_resnet18_bs128x2_ampFalse": [2.0, 2.0],
    "ps_mode_resnet18_bs128_workers2": [None, None, 2.0],
    "ps_mode_resnet18_bs128_workers2+consistency=sync": [None, None, 2.0],
    "model_parallel_resnet18_bs256_cacheFalse": None,
    "model_parallel_resnet18_bs256_cacheFalse+micro_batches=4": None,
}
PARAMETERS, TENSORS = 705_032, 62  # bytes, and number, of the tiny profile's ResNet-18


def ranks_of(name, monkeypatch, tmp_path, **more):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    planned = train.get_ready([name], "tiny", overrides={"epochs": 2, **more})
    (result,) = train.train_rows(planned, 1, True)[planned.rows[0].name]
    assert result.status == "ok", result.reason
    return result.ranks


@pytest.mark.parametrize("name", ROWS)
def test_the_verbs_the_kernel_and_the_formula_agree(name, monkeypatch, tmp_path):
    ranks = ranks_of(name, monkeypatch, tmp_path)
    for rank in ranks:
        formula = sum(sent_by_formula(verb, n, len(ranks)) for verb, (_, n) in rank.messages_per_step.items())
        messages = sum(count for count, _ in rank.messages_per_step.values())
        headers = rank.sent_bytes_per_step - formula
        assert headers % HEADER == 0 and (headers > 0) == (messages > 0), "the kernel counts what the verbs say, and headers"
        assert headers <= MOST_HEADERS * HEADER * messages
        if ROWS[name] and ROWS[name][rank.rank] is not None:
            assert formula == ROWS[name][rank.rank] * PARAMETERS
    if "ps_mode" in name:  # a worker pushes gradients, and for each tensor a number that says whether it has one, and one more
        header = 4 * (1 + TENSORS)
        assert ranks[0].messages_per_step == {"send": [1, PARAMETERS + header], "recv": [1, PARAMETERS]}
        assert ranks[2].messages_per_step == {"send": [2, 2 * PARAMETERS], "recv": [2, 2 * (PARAMETERS + header)]}
    if "model_parallel" in name:  # activations forward, and as many bytes of their gradients back
        sent = [one.messages_per_step["send"] for one in ranks]
        assert sent[0] == sent[1] and sent[0][0] == (4 if "micro" in name else 1)


def test_the_number_of_messages_is_the_forms(monkeypatch, tmp_path):
    assert ranks_of(COLLECTIVE, monkeypatch, tmp_path)[0].messages_per_step == {"all_reduce": [TENSORS, PARAMETERS]}
    assert ranks_of(COLLECTIVE + "+form=flat", monkeypatch, tmp_path)[1].messages_per_step == {"all_reduce": [1, PARAMETERS]}
    assert runs_folder() == tmp_path


def test_a_run_of_one_step_says_what_it_sent(monkeypatch, tmp_path):
    ranks = ranks_of(COLLECTIVE + "+form=flat", monkeypatch, tmp_path, epochs=1, train_samples=256)
    assert [rank.steps for rank in ranks] == [1, 1] and ranks[0].messages_per_step["all_reduce"] == [1, PARAMETERS]


@pytest.fixture
def alone(tmp_path):
    """A group of this process alone, over gloo."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    COUNTER.count()
    yield dist.group.WORLD
    dist.destroy_process_group()


def test_payloads_of_every_verb(alone):
    x, y = torch.zeros(3, dtype=torch.float64), torch.zeros(2, dtype=torch.int32)
    traffic = Traffic(sockets=True)
    traffic.begin(0)
    dist.all_reduce(x)
    dist.all_reduce_coalesced([y, y])
    dist.broadcast(y, 0)
    dist.all_gather([torch.empty_like(y)], y)
    dist.all_gather_into_tensor(torch.empty_like(x), x)
    dist.reduce_scatter_tensor(torch.empty_like(x), x)
    dist.barrier()
    with torch.inference_mode():
        dist.reduce(x, 0)
    traffic.end(2)
    halves = {verb: [2 * count, 2 * n] for verb, (count, n) in traffic.per_step.items()}
    gathered = {"all_gather": [2, 8 + 24], "reduce_scatter": [1, 24], "reduce": [1, 24]}
    assert halves == {"all_reduce": [2, 24 + 16], "broadcast": [1, 8], "barrier": [1, 0], **gathered}
    traffic.begin(2)
    traffic.end(2)
    assert traffic.per_step, "an epoch without a step changes nothing"


def test_a_failed_message_still_raises_its_own_error(alone):
    with pytest.raises(RuntimeError, match="Invalid scalar type"):
        dist.all_reduce(torch.zeros(2, dtype=torch.int16))


def test_counting_twice_counts_once(alone):
    library = COUNTER.library
    COUNTER.count()
    assert COUNTER.library is library
    assert Counter().messages == {} and bytes_in([[torch.zeros(2)], torch.zeros(3, 2, dtype=torch.bool)]) == 8 + 6


def test_the_formula():
    assert sent_by_formula("all_reduce", 12, 3) == 16 and sent_by_formula("all_gather", 12, 3) == 8
    assert sent_by_formula("reduce_scatter", 12, 2, "nccl") == 6 and sent_by_formula("reduce_scatter", 12, 2) == 12
    assert sent_by_formula("broadcast", 12, 2) is None, "only the root sends it"


def test_the_kernels_count(monkeypatch):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as one:
        other, _ = server.accept()
        with other:
            before = sent_bytes()
            one.sendall(b"x" * 1234)
            other.sendall(b"y" * 100_000)
            assert sent_bytes() - before == 101_234
    monkeypatch.setattr("sys.platform", "darwin")
    assert sent_bytes() is None, "not counted, which is not 0"
