"""The training loop. There is only this one, and it knows no strategy by name: it asks for one step at a time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call

from labkit.data.batches import Data
from labkit.engine.measure import Memory, Progress, synchronise
from labkit.engine.models import build_model
from labkit.rows.spec import Spec
from labkit.strategy import Place, Precision, Strategy, strategy_class


class NotAResult(RuntimeError):
    """Training ended, but what came out must not be shown as a result: ranks disagree, or the loss is not a number."""


def train(spec: Spec, rank: int, device: torch.device, data_folder: Path, progress: Progress) -> dict[str, Any]:
    """Train one row and return this rank's measurements (plain numbers, ready for JSON). Every process calls it.

    Raises NotAResult if the loss is not finite, if the ranks' weights differ at the end, or if the images of an epoch
    were not trained exactly once.
    """
    progress.at("setup")
    memory = Memory(device)
    strategy, data, place, skeleton = build(spec, rank, device, data_folder)
    clock, epochs, state = Clock(spec, device, place.total_steps), [], {}
    for epoch in range(spec.epochs):
        losses, images = train_epoch(strategy, data, epoch, clock, progress)
        peak_mb = memory.peak_mb()
        progress.at("evaluate")
        started = time.perf_counter()
        check_losses(losses, epoch, place)
        check_images(strategy.shard, images, data, epoch, place)
        state = strategy.state()
        accuracy = evaluate(skeleton, state, data, spec, place)
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
        "max_mem_mb": peak_mb,
        **clock.figures(),
        "strategy": strategy.measured() if hasattr(strategy, "measured") else {},
    }


def build(
    spec: Spec, rank: int, device: torch.device, data_folder: Path, wrap: Callable[..., Strategy] | None = None
) -> tuple[Strategy, Data, Place, nn.Module]:
    """What a rank needs before its first step: its strategy around its own copy of the model, its data, its place among
    the ranks, and the plain model without weights, which evaluation runs on the strategy's `state()`.

    `wrap(model, spec, place)` makes the strategy; the Spec's own if not given (a probe puts its hooks on the model first).
    """
    wrap = wrap or strategy_class(spec.strategy)
    data = Data(spec, data_folder, device)
    place = Place(rank, spec.processes, device, data.steps_per_epoch, spec.epochs)
    torch.manual_seed(spec.seed + rank)  # other weights on every rank: a strategy must make them equal, and a fault shows
    strategy = wrap(model_of(spec, data).to(device), spec, place)
    with torch.device("meta"):
        skeleton = model_of(spec, data).eval()
    return strategy, data, place, skeleton


def model_of(spec: Spec, data: Data) -> nn.Sequential:
    layout = torch.channels_last if spec.channels_last else torch.contiguous_format
    model = build_model(spec.model, spec.width, data.info.channels, data.info.classes, spec.norm)
    return model.to(memory_format=layout)


class Clock:
    """Where the time goes. It never waits for the device inside an epoch, only at the end of one."""

    def __init__(self, spec: Spec, device: torch.device, total_steps: int):
        self.device, self.warmup_steps = device, min(spec.warmup_steps, total_steps // 2)  # a short run, too, has a figure
        self.steps = self.images = 0
        self.timed_s = self.train_s = self.eval_s = self.data_wait_s = 0.0
        self.first_step_at = 0.0

    def start_epoch(self) -> None:
        self.epoch_began = self.timing_since = time.perf_counter()
        self.first_step_at = self.first_step_at or time.monotonic()

    def stepped(self, images: int, waited_s: float) -> None:
        self.steps += 1
        self.data_wait_s += waited_s
        if self.steps > self.warmup_steps:
            self.images += images
        elif self.steps == self.warmup_steps:
            synchronise(self.device)  # once, on the border: the warm-up's work is not the timed part's
            self.timing_since = time.perf_counter()

    def end_epoch(self) -> None:
        synchronise(self.device)
        now = time.perf_counter()
        self.train_s += now - self.epoch_began
        if self.steps > self.warmup_steps:
            self.timed_s += now - self.timing_since

    def figures(self) -> dict[str, float]:
        return {
            "images_timed": self.images,
            "timed_s": self.timed_s,
            "images_per_s": self.images / self.timed_s if self.images else 0.0,
            "train_s": self.train_s,
            "eval_s": self.eval_s,
            "data_wait_s": self.data_wait_s,
            "steps": self.steps,
            "first_step_at": self.first_step_at,
        }


def train_epoch(strategy, data: Data, epoch: int, clock: Clock, progress: Progress) -> tuple[list[Tensor], list[np.ndarray]]:
    """One pass. Returns the losses this rank saw, as tensors, and the index of every image it trained."""
    losses, trained = [], []
    clock.start_epoch()
    nothing = ((None, None, np.empty(0, int)) for _ in range(data.steps_per_epoch))
    batches = iter(nothing if strategy.shard is None else data.train_batches(epoch, strategy.shard))
    for step in range(data.steps_per_epoch):
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


@torch.no_grad()
def evaluate(skeleton: nn.Module, state: dict[str, Tensor], data: Data, spec: Spec, place: Place) -> float:
    """Test accuracy in percent: each process counts its part of the test images, and the counts are added."""
    precision, right = Precision(spec, place), torch.zeros((), device=data.device)
    for x, y in data.test_batches(place.rank, place.processes):
        with precision.autocast():
            right += (functional_call(skeleton, state, (x,)).argmax(1) == y).sum()
    total = sum(row[0] for row in gathered([float(right)], place))
    return 100 * total / len(data.raw_test)


def gathered(numbers: list[float], place: Place) -> list[list[float]]:
    """Every process's numbers, by rank."""
    mine = torch.tensor(numbers, dtype=torch.float64)
    if place.processes == 1:
        return [mine.tolist()]
    rows = [torch.empty_like(mine) for _ in range(place.processes)]
    dist.all_gather(rows, mine)
    return [row.tolist() for row in rows]


def mean_loss(losses: list[Tensor], place: Place) -> float:
    mine = float(torch.stack(losses).float().mean()) if losses else 0.0
    rows = gathered([mine, float(bool(losses))], place)
    return sum(loss for loss, seen in rows if seen) / sum(seen for _, seen in rows)


def check_losses(losses: list[Tensor], epoch: int, place: Place) -> None:
    """Raise if a loss was not a number: on one rank first (its data or its arithmetic), or on all at once."""
    bad = torch.stack(losses).isfinite().logical_not().nonzero().flatten().tolist() if losses else []
    rows = gathered([bad[0] if bad else float("inf"), float(bool(losses))], place)
    first, watching = [row[0] for row in rows], sum(row[1] for row in rows)  # only some ranks see a loss
    if min(first) < float("inf"):
        ranks = [rank for rank, step in enumerate(first) if step == min(first)]
        where = f"epoch {epoch + 1}, step {int(min(first)) + 1}"
        if len(ranks) < watching:
            raise NotAResult(
                f"the loss of rank {', '.join(map(str, ranks))} was not finite in {where}, before any other's: look at its data"
            )
        raise NotAResult(
            f"the loss was not finite in {where}, on every rank: the learning rate is too high, or the data is at fault"
        )


def check_images(shard, trained: list[np.ndarray], data: Data, epoch: int, place: Place) -> None:
    """Raise unless the ranks' parts were different and together every image of the epoch's order, once."""
    from labkit.data.batches import Draws

    part, parts = shard if shard else (-1, 0)
    index = np.concatenate(trained)
    rows = gathered([part, parts, len(index), fingerprint_of_set(index)], place)
    different = {(part, parts): (n, digest) for part, parts, n, digest in rows if parts}
    order = Draws(data.spec, len(data.raw), epoch).order[: data.steps_per_epoch * data.spec.images_per_step]
    if any(parts != data.spec.shards for _, parts in different):
        raise NotAResult(
            f"epoch {epoch + 1}: images were cut into other than {data.spec.shards} parts: ranks share or skip a shard"
        )
    n, digest = (sum(column) for column in zip(*different.values(), strict=True))
    if n != len(order) or digest != fingerprint_of_set(order):
        raise NotAResult(
            f"epoch {epoch + 1} trained {int(n)} images where it should train {len(order)}, each once: ranks share or skip a shard"
        )


def fingerprint_of_set(index: np.ndarray) -> float:
    """A sum over hashed indices: equal for equal sets in any order, exact in float64 (each below 2**31)."""
    mixed = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return float((mixed >> np.uint64(33)).sum())


def check_weights(state: dict[str, Tensor], skeleton: nn.Module, place: Place) -> None:
    """Raise unless every process ends with the same parameters, bit for bit: they applied the same updates to the same numbers."""
    digest = hashlib.sha256()
    for name, _ in skeleton.named_parameters():
        weights = state[name].detach()
        if not weights.isfinite().all():
            raise NotAResult(
                f"{name} ended with weights that are not finite: the learning rate is too high, or the data is at fault"
            )
        digest.update(weights.cpu().contiguous().numpy().tobytes())
    rows = gathered(list(digest.digest()), place)
    odd = [str(rank) for rank, row in enumerate(rows) if row != rows[0]]
    if odd:
        raise NotAResult(
            f"the weights of rank {', '.join(odd)} differ from rank 0's: gradients or first weights were not exchanged"
        )
