"""The training loop. There is only one, and it names no strategy: it asks the strategy for one step at a time.

An epoch in the order of time. Every rank does the same, and no rank is more than one line ahead of another:

    train_epoch     data, step | data, step | ...     the strategy exchanges gradients inside `step`
    check_losses, check_images                        the ranks exchange a few numbers and compare them
    strategy.state                                    the full weights, on every rank
    Evaluation.accuracy_pct                           each rank: a part of the test images; then the counts are added

After the last epoch check_weights compares the parameters of all ranks, bit for bit.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from labkit.data.batches import Data, Draws
from labkit.engine.evaluation import Evaluation
from labkit.engine.measure import Clock, Memory, Progress
from labkit.engine.models import build_model
from labkit.rows.catalog import DATASETS
from labkit.rows.spec import Spec
from labkit.strategies import strategy_class
from labkit.strategy import Place, Strategy

LEAST_STEPS, LEAST_IMAGES = 4, 1024  # that are timed, when a row is only timed


class NotAResult(RuntimeError):
    """Training ended, but its figures must not be used as a result: the ranks disagree, or a loss or weight is not finite."""


def train(spec: Spec, rank: int, device: torch.device, data_folder: Path, progress: Progress) -> dict[str, Any]:
    """Train one row, and return what this rank measured as plain data (JSON). Every process of the run calls it.

    Keys: rank, shard, epochs (a list of epoch, train_loss, test_acc_pct, ended_at), the peak memory in MiB, the figures of
    `Clock`, and strategy (what the strategy counted). Raises NotAResult if a loss or a weight is not finite, if the
    images of an epoch were not trained once each, or if the ranks' weights differ at the end."""
    progress.at("setup")
    memory = Memory(device)
    strategy, data, place, skeleton = build(spec, rank, device, data_folder)
    clock, epochs, state = Clock(spec, device, place.total_steps), [], {}
    evaluation = Evaluation(skeleton, data, spec, place)
    for epoch in range(spec.epochs):
        losses, images = train_epoch(strategy, data, epoch, clock, progress)
        peak_mib = memory.peak_mib()
        progress.at("evaluate")
        started = time.perf_counter()
        check_losses(losses, epoch, place)
        check_images(strategy.shard, images, data, epoch, place)
        state = strategy.state()
        accuracy = evaluation.accuracy_pct(state)
        loss = mean_loss(losses, place)
        memory.forget_evaluation()
        clock.eval_s += time.perf_counter() - started
        epochs.append({"epoch": epoch + 1, "train_loss": loss, "test_acc_pct": accuracy, "ended_at": time.monotonic()})
        progress.epoch(epochs[-1])
    check_weights(state, skeleton, place)
    return {
        "rank": rank,
        "shard": strategy.shard,
        "epochs": epochs,
        "max_mem_mib": peak_mib,
        **clock.figures(),
        "strategy": strategy.measured() if hasattr(strategy, "measured") else {},
    }


def build(
    spec: Spec, rank: int, device: torch.device, data_folder: Path, wrap: Callable[..., Strategy] | None = None
) -> tuple[Strategy, Data, Place, nn.Module]:
    """What a rank needs before its first step: the strategy with its own copy of the model, the data, the place among the
    ranks, and a model without weights. Evaluation runs this model on the weights that the strategy's `state()` returns.

    `wrap(model, spec, place)` makes the strategy; None: the strategy that the Spec names. (A probe gives another one.)"""
    wrap = wrap or strategy_class(spec.strategy)
    place = Place(rank, spec.processes, device, spec.steps_per_epoch, spec.epochs)
    # Every rank starts from other random weights. A strategy must make them equal; if it forgets, the ranks end with other
    # weights, and check_weights finds it. (With one seed for all ranks the mistake would stay hidden.)
    torch.manual_seed(spec.seed + rank)
    strategy = wrap(model_of(spec).to(device), spec, place)
    data = Data(spec, data_folder, device, getattr(strategy, "needs_images", True))
    with torch.device("meta"):  # evaluation never asks other ranks for their statistics
        skeleton = model_of(spec.but(norm="batch") if spec.norm == "sync" else spec).eval()
    return strategy, data, place, skeleton


def model_of(spec: Spec) -> nn.Sequential:
    """The network of a Spec for its images, with random weights, in the Spec's memory format."""
    layout, info = (torch.channels_last if spec.channels_last else torch.contiguous_format), DATASETS[spec.dataset]
    model = build_model(spec.model, spec.width, info.channels, info.classes, spec.norm)
    return model.to(memory_format=layout)


def time_steps(spec: Spec, rank: int, device: torch.device, data_folder: Path, progress: Progress) -> dict[str, Any]:
    """Make only as many steps as are needed to time a row (`steps_to_time`), without evaluation, and return what this rank measured:
    rank, shard, and the figures of `Clock`. Every process of the row calls it. Its weights are no result."""
    progress.at("setup")
    timed, per_epoch = steps_to_time(spec), spec.steps_per_epoch
    longer = spec.but(epochs=max(spec.epochs, -(-timed // per_epoch)))
    strategy, data, _, _ = build(longer, rank, device, data_folder)
    clock, left = Clock(spec, device, timed), timed
    for epoch in range(longer.epochs):
        train_epoch(strategy, data, epoch, clock, progress, steps=min(left, per_epoch))
        left -= min(left, per_epoch)
        if not left:
            break
    return {"rank": rank, "shard": strategy.shard, **clock.figures()}


def steps_to_time(spec: Spec) -> int:
    """Steps of a rank that time a row: the warm-up, and then LEAST_STEPS, or as many as LEAST_IMAGES images need."""
    return spec.warmup_steps + max(LEAST_STEPS, -(-LEAST_IMAGES // spec.images_per_step))


def train_epoch(
    strategy, data: Data, epoch: int, clock: Clock, progress: Progress, steps: int | None = None
) -> tuple[list[Tensor], list[np.ndarray]]:
    """One pass over the images, or only its first `steps` steps. Returns the losses that this rank computed, as tensors, one a step (empty on a rank that
    computes none), and for each step the indices (b,) of the images that it trained."""
    losses, trained = [], []
    clock.start_epoch()
    nothing = ((None, None, np.empty(0, int)) for _ in range(data.steps_per_epoch))
    batches = iter(nothing if strategy.shard is None else data.train_batches(epoch, strategy.shard))
    for step in range(data.steps_per_epoch if steps is None else steps):
        progress.at("data", epoch, step)
        asked = time.perf_counter()
        x, y, index = next(batches)
        waited_s = time.perf_counter() - asked
        progress.at("step", epoch, step)
        loss = strategy.step(x, y)
        clock.stepped(len(index), waited_s)
        if loss is not None:
            losses.append(loss)
            progress.loss = loss
        trained.append(index)
    clock.end_epoch()
    return losses, trained


def gathered(numbers: list[float], place: Place) -> list[list[float]]:
    """The numbers of every process, in the order of ranks: a message in which all processes take part. Every process must give
    equally many numbers; they are sent as float64."""
    message = torch.tensor(numbers, dtype=torch.float64)
    if place.processes == 1:
        return [message.tolist()]
    rows = [torch.empty_like(message) for _ in range(place.processes)]
    dist.all_gather(rows, message)
    return [row.tolist() for row in rows]


def mean_loss(losses: list[Tensor], place: Place) -> float:
    """The mean loss of an epoch over the ranks that compute a loss. Every process calls it."""
    own_mean = float(torch.stack(losses).float().mean()) if losses else 0.0
    has_losses = 1.0 if losses else 0.0
    rows = gathered([own_mean, has_losses], place)
    means = [mean for mean, has in rows if has]
    return sum(means) / len(means)


def check_losses(losses: list[Tensor], epoch: int, place: Place) -> None:
    """Raise NotAResult, on every rank, if a loss of this epoch was not finite. If it was so on some ranks first, their data or
    their arithmetic is at fault, and the message names them; on all ranks at once, the learning rate may be too high."""
    bad = torch.stack(losses).isfinite().logical_not().nonzero().flatten().tolist() if losses else []
    has_losses = 1.0 if losses else 0.0  # a stage that is not the last, and a server, compute no loss
    rows = gathered([bad[0] if bad else float("inf"), has_losses], place)
    first_bad_step = [row[0] for row in rows]
    ranks_with_losses = sum(row[1] for row in rows)
    earliest = min(first_bad_step)
    if earliest < float("inf"):
        ranks = [rank for rank, step in enumerate(first_bad_step) if step == earliest]
        where = f"epoch {epoch + 1}, step {int(earliest) + 1}"
        if len(ranks) < ranks_with_losses:
            raise NotAResult(
                f"the loss of rank {', '.join(map(str, ranks))} was not finite in {where}, before any other's: look at its data"
            )
        raise NotAResult(
            f"the loss was not finite in {where}, on every rank: the learning rate is too high, or the data is at fault"
        )


def check_images(shard, trained: list[np.ndarray], data: Data, epoch: int, place: Place) -> None:
    """Raise NotAResult, on every rank, unless the parts of the ranks together are every image of the epoch once.

    Ranks may share a part (the stages of a pipeline): a part counts once. No rank sends its indices. It sends their number
    and a fingerprint of their set, and the sums of both over the parts must be those of the whole epoch."""
    part, parts = shard if shard else (-1, 0)
    index = np.concatenate(trained)
    rows = gathered([part, parts, len(index), fingerprint_of_set(index)], place)
    of_part = {(part, parts): (n, digest) for part, parts, n, digest in rows if parts}
    order = Draws(data.spec, len(data.raw), epoch).order[: data.steps_per_epoch * data.spec.images_per_step]
    if any(parts != data.spec.shards for _, parts in of_part):
        raise NotAResult(
            f"epoch {epoch + 1}: a step's images must be cut into {data.spec.shards} parts, and a rank cut them otherwise: "
            "ranks share or skip a shard; check the strategy's `shard`"
        )
    n, digest = (sum(column) for column in zip(*of_part.values(), strict=True))
    if n != len(order) or digest != fingerprint_of_set(order):
        raise NotAResult(
            f"epoch {epoch + 1} trained {int(n)} images where it should train {len(order)}, each once: ranks share or skip a shard; "
            "check the strategy's `shard`"
        )


def fingerprint_of_set(index: np.ndarray) -> float:
    """The sum of a hash of each index (n,). It is the same in any order, and adds up over disjoint sets. float64 adds it
    exactly, since each hash is below 2**31."""
    mixed = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return float((mixed >> np.uint64(33)).sum())


def check_weights(state: dict[str, Tensor], skeleton: nn.Module, place: Place) -> None:
    """Raise NotAResult, on every rank, unless all parameters are finite and are the same on every process, bit for bit. They
    must be: every rank applied the same updates to the same numbers."""
    digest = hashlib.sha256()
    for name, _ in skeleton.named_parameters():
        weights = state[name].detach()
        if not weights.isfinite().all():
            raise NotAResult(
                f"{name} ended with weights that are not finite: the learning rate is too high, or the data is at fault"
            )
        digest.update(weights.cpu().contiguous().numpy().tobytes())
    rows = gathered(list(digest.digest()), place)
    different = [str(rank) for rank, row in enumerate(rows) if row != rows[0]]
    if different:
        raise NotAResult(
            f"the weights of rank {', '.join(different)} differ from rank 0's: the gradients or the initial weights were not exchanged"
        )
