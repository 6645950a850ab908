"""The exercises' right answers are those of the lab's own code, of torch and of numpy."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from labkit import checks
from tests.helpers.answers import solutions as right


def test_block_parameters_are_those_of_the_model():
    from labkit.engine.models import Block, build_model

    for cin, cout, stride in ((64, 64, 1), (64, 128, 2), (16, 16, 2)):
        assert right.block_parameters(cin, cout, stride) == sum(
            p.numel() for p in Block("basic", cin, cout, stride, "batch").parameters()
        )
    whole = [tuple(p.shape) for p in build_model("resnet18", 64, 3, 100).parameters()]
    assert right.gradient_bytes(whole, 4) == 4 * 11_220_132
    assert "11,220,132" in checks.check_block_parameters(right.block_parameters).message


def test_rounding_is_that_of_the_formats():
    for x in (1.001, 3.14159, -2.7, 1000.3, 0.0013, 0.0, 65000.0):
        assert right.rounded(x, 10) == float(np.float16(x))
        assert right.rounded(x, 7) == torch.tensor(x, dtype=torch.float64).to(torch.bfloat16).item()


def test_the_ring_sends_what_the_labs_ring_sends(monkeypatch):
    from labkit import strategy

    n, sent = 4, []

    def exchange(operations):
        sent.append(operations[0].tensor.storage_offset() // 3)
        return []

    for rank in range(n):
        fake = SimpleNamespace(get_rank=lambda rank=rank: rank, get_world_size=lambda: n, isend="send", irecv="receive")
        fake.P2POp = lambda operation, tensor, peer: SimpleNamespace(operation=operation, tensor=tensor, peer=peer)
        fake.batch_isend_irecv = exchange
        monkeypatch.setattr(strategy, "dist", fake)
        sent.clear()
        strategy.ring_all_reduce(torch.zeros(12))
        assert sent == [right.ring_step(rank, n, step)[0] for step in range(2 * (n - 1))]


def test_the_warm_up_is_that_of_the_lab():
    from labkit.rows.spec import Spec
    from labkit.strategy import learning_rate_factor

    spec = Spec(lr=0.4, lr_schedule="constant", warmup_fraction=0.5)
    for step in range(10):
        assert right.learning_rate(step, 0.1, 128, 512, 5) == pytest.approx(spec.lr * learning_rate_factor(spec, 10, step))


def test_the_bubble_is_its_formula():
    from labkit.checks.schedules import drive, gpipe

    for stages, m in ((2, 3), (4, 8), (5, 5)):
        for orders in ([gpipe(m)] * stages, [right.one_f_one_b(stage, stages, m) for stage in range(stages)]):
            ran = drive(orders)
            assert 1 - 3 * m / ran.time == pytest.approx(right.bubble_share(stages, m))
    assert drive([right.one_f_one_b(stage, 4, 8) for stage in range(4)]).held == [4, 3, 2, 1]


def test_the_server_waits_when_the_labs_server_waits():
    from labkit.strategies.parameter_server import ParameterServer

    for bound in (0, 1, 3):
        for read in ([5, 5], [4, 2], [1], []):
            listening = dict(enumerate(range(len(read))))
            server = SimpleNamespace(
                version=5, read=read, listening=listening, spec=SimpleNamespace(consistency="ssp", staleness_bound=bound)
            )
            assert right.may_update(5, read, bound) == ParameterServer.may_update(server)


def test_statistics_over_ranks_are_those_of_the_labs_batch_norm(monkeypatch):
    """Means, variances and counts of two shards; and what SyncBatchNorm normalises with, where `all_reduce` adds both shards."""
    from labkit.engine import models

    torch.manual_seed(0)
    shards = [torch.randn(3, 1, 2, 2) * scale + shift for scale, shift in ((1.0, 0.0), (3.0, 2.0))]
    counts = [shard.numel() for shard in shards]
    means, variances = ([float(f(shard)) for shard in shards] for f in (torch.mean, lambda x: x.var(unbiased=False)))
    mean, variance = right.sync_statistics(means, variances, counts)
    sums = [torch.tensor([float(shard.sum()), float(shard.square().sum()), float(shard.numel())]) for shard in shards]
    monkeypatch.setattr(models, "all_reduce", lambda own: sum(sums))
    norm = models.SyncBatchNorm(1)
    for shard in shards:
        assert torch.allclose(norm(shard), (shard - mean) / (variance + norm.eps) ** 0.5, atol=1e-5)
