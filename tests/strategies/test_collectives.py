"""The hand-written messages: the ring all-reduce beside gloo's, tensors on their way in any memory format."""

import itertools

import pytest
import torch
import torch.distributed as dist

from labkit.strategy import receive_into, ring_all_reduce, send
from tests.helpers.workers import in_workers

TYPES = ["float64", "int64"]
FORMATS = list(itertools.product(["float32", "bfloat16"], ["contiguous_format", "channels_last"]))


def sizes(ranks):
    """Fewer elements than ranks, one each, one more, and many that cannot be divided."""
    return sorted({1, ranks - 1, ranks, ranks + 1, 10007})


# -- inside the workers ---------------------------------------------------------------------------------------------


def ring(*, rank, progress):
    """For every type and size: my tensor, and what our ring and gloo made of it."""
    made = {}
    for dtype, size in itertools.product(TYPES, sizes(dist.get_world_size())):
        mine = (torch.arange(size) * 7 + 1000 * rank + 1).to(getattr(torch, dtype))  # whole numbers add exactly in any order
        by_ring, by_gloo = mine.clone(), mine.clone()
        ring_all_reduce(by_ring)
        dist.all_reduce(by_gloo)
        made[f"{dtype} x {size}"] = [tensor.tolist() for tensor in (mine, by_ring, by_gloo)]
    return made


def travel(*, rank, progress):
    """For every type and memory format: what rank 0 sent, and what rank 1 then holds."""
    held = {}
    for dtype, layout in FORMATS:
        mine = torch.arange(120).view(2, 3, 4, 5).to(getattr(torch, dtype)).contiguous(memory_format=getattr(torch, layout))
        if rank == 0:
            send(mine, 1)
        else:
            receive_into(mine.zero_(), 0)
        held[f"{dtype}, {layout}"] = mine.double().flatten().tolist()
    return held


# -- the tests ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def rings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ring")
    return {ranks: in_workers("ring", ranks, folder, "tests.strategies.test_collectives") for ranks in (2, 3, 4)}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("ranks", "size"), [(ranks, size) for ranks in (2, 3, 4) for size in sizes(ranks)])
def test_ring_all_reduce_equals_gloos(rings, ranks, size, dtype):
    told = [rank[f"{dtype} x {size}"] for rank in rings[ranks]]
    wanted = [sum(column) for column in zip(*(mine for mine, _, _ in told), strict=True)]
    for rank, (mine, by_ring, by_gloo) in enumerate(told):
        assert len(mine) == size and mine != wanted, "the ranks must start from different tensors, or the sum proves nothing"
        assert by_gloo == wanted, f"rank {rank} of {ranks}: gloo itself did not add {size} elements"
        assert by_ring == wanted, f"rank {rank} of {ranks}: the ring did not add {size} elements of type {dtype} exactly"


@pytest.fixture(scope="session")
def travelled(tmp_path_factory):
    return in_workers("travel", 2, tmp_path_factory.mktemp("travel"), "tests.strategies.test_collectives")


@pytest.mark.parametrize(("dtype", "layout"), FORMATS)
def test_tensors_arrive_in_their_memory_format(travelled, dtype, layout):
    """Activations go over the wire as they lie in memory, NHWC or NCHW; both ends know which."""
    sent, held = (rank[f"{dtype}, {layout}"] for rank in travelled)
    assert sent == list(range(120)) and held == sent, (
        f"{dtype} in {layout}: rank 1 holds {held[:8]}..., rank 0 sent {sent[:8]}..."
    )
