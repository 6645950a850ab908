"""The half of the tests that runs inside worker processes: twins of the models that `labkit.prove` uses, and observed runs.

A test launches `equality`, `runs` or another function that takes `rank` and `progress`, with many cases at once. A case
is a dict of Spec fields and, under "_" names, of what to do with it; what comes back is plain data, by case.
"""

import copy
import hashlib
import time
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy

from labkit.engine import loop
from labkit.engine.job import Job
from labkit.engine.models import build_model
from labkit.processes.launch import launch
from labkit.proof import models
from labkit.proof.cases import STRONG
from labkit.rows.spec import Spec
from labkit.strategies import strategy_class
from labkit.strategy import Place, learning_rate_factor

CHECK_WEIGHTS = loop.check_weights
CPU = torch.device("cpu")
STEPS, IMAGES = 5, 24


def in_workers(function, processes, folder, module="tests.helpers.workers", **arguments):
    """For the tests' side: what a function returned on each rank."""
    return launch(Job(f"{module}:{function}", processes, Path(folder), arguments))


def seeded(case, spec, rank):
    return models.seeded(case["_model"], spec, rank)  # as loop.train does: other weights on every rank


def batch(step, model):
    return models.batch(step, model, IMAGES)


# -- a strategy's weights beside its twin's -------------------------------------------------------------------------


def equality(*, rank, progress, cases):
    """For every case: `difference` from its twin (the largest, relative with 0.01 as floor), or the `error`."""
    return {name: attempt(lambda injected, case=case: compared(case, rank, injected)) for name, case in cases.items()}


def fields(case):
    return {key: value for key, value in case.items() if not key.startswith("_")}


def attempt(do):
    injected = []
    try:
        return {"error": "", **do(injected), "injected": len(injected)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "injected": len(injected)}
    finally:
        patch.stopall()


def maker(case, injected):
    """A strategy_class whose strategies carry the case's fault, if it has one."""
    if "_fault" not in case:
        return strategy_class
    from tests.strategies.test_faults import FAULTS

    return lambda name: (
        lambda model, spec, place: FAULTS[case["_fault"]](lambda: strategy_class(name)(model, spec, place), spec, place, injected)
    )


def compared(case, rank, injected):
    spec, make = Spec(**STRONG, **fields(case)), maker(case, injected)
    rank, processes = (rank, spec.processes) if spec.processes > 1 else (0, 1)
    mine = after_steps(case, spec, make(spec.strategy), Place(rank, processes, CPU, STEPS, 1))
    if case.get("_twin", "single") == "single":
        whole = Spec(**STRONG, batch_per_rank=IMAGES, channels_last=spec.channels_last)
        twin = after_steps(case, whole, strategy_class("single"), Place(0, 1, CPU, STEPS, 1))
    else:
        twin = by_hand(case, spec, parts=spec.world_size)
    if mine.keys() != twin.keys():
        raise ValueError(f"the names differ: {sorted(mine.keys() ^ twin.keys())}")
    return {"difference": max(float(((mine[k] - twin[k]).abs() / (0.01 + twin[k].abs())).max()) for k in twin)}


def after_steps(case, spec, make, place):
    model = seeded(case, spec, place.rank)
    trainer = make(model, spec, place)
    for step in range(STEPS):
        part, parts = trainer.shard or (0, 1)
        x, y = batch(step, model)
        trainer.step(*((None, None) if trainer.shard is None else (x.chunk(parts)[part], y.chunk(parts)[part])))
    return {name: tensor.detach().clone() for name, tensor in trainer.state().items()}


def by_hand(case, spec, parts):
    """No strategy and no optimizer class, in one process: the mean of the gradients of `parts` copies of the model, each
    with its own images, and SGD as its formula stands. Buffers are the first copy's."""
    model, velocity = seeded(case, spec, 0), {}
    for step in range(STEPS):
        x, y = batch(step, model)
        copies = [copy.deepcopy(model) for _ in range(parts)]
        for mine, xs, ys in zip(copies, x.chunk(parts), y.chunk(parts), strict=True):
            cross_entropy(mine(xs), ys).backward()
        with torch.no_grad():
            for name, p in model.named_parameters():
                grads = [mine.get_parameter(name).grad for mine in copies]
                if grads[0] is not None:
                    velocity[name] = spec.momentum * velocity.get(name, 0) + sum(grads) / parts + spec.weight_decay * p
                    p -= spec.lr * learning_rate_factor(spec, STEPS, step) * velocity[name]
            for name, buffer in model.named_buffers():
                buffer.copy_(copies[0].get_buffer(name))
    return model.state_dict()


# -- rows through the real loop -------------------------------------------------------------------------------------


def runs(*, rank, progress, data, cases):
    """Train every case through labkit.engine.loop.train; what happened in it, by case."""
    return {k: attempt(lambda injected, case=case: watched(case, rank, progress, data, injected)) for k, case in cases.items()}


def run(*, rank, progress, data, case):
    """One such run that may fail, as a row would."""
    return watched(case, rank, progress, data, [])


def watched(case, rank, progress, data, injected):
    spec, seen = Spec(**fields(case)), Seen(case)
    rank = rank if spec.processes > 1 else 0
    patch.object(loop, "build_model", seen.build_model).start()
    patch.object(loop, "check_weights", seen.check_weights).start()
    make = maker(case, injected)
    patch.object(loop, "strategy_class", lambda name: lambda *place: seen.steps_of(make(name)(*place), rank)).start()
    return seen.told | loop.train(spec, rank, CPU, Path(data), progress)


class Seen:
    """Looks at one rank's run from inside, and changes nothing in it."""

    def __init__(self, case):
        self.case, self.told = case, {"dtypes": [], "batches": [], "order": "", "scales": []}

    def build_model(self, *arguments):
        model = build_model(*arguments)
        if not next(model.parameters()).is_meta:  # that one is the loop's skeleton for evaluation
            self.told["parameters"] = sum(p.numel() for p in model.parameters())
            convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
            for conv in convs:
                conv.register_forward_hook(self.forward)
            convs[0].register_forward_hook(self.draw)
        return model

    def forward(self, _conv, images, out):
        for key, value in {"dtypes": str(out.dtype), "batches": len(out)}.items():
            if value not in self.told[key]:
                self.told[key].append(value)

    def draw(self, _conv, _images, out):
        """F for a forward through the first layer, B for its backward."""
        self.told["order"] += "F"
        self.told["layout"] = "NHWC" if out.is_contiguous(memory_format=torch.channels_last) else "NCHW"
        out.register_hook(lambda _: self.told.update(order=self.told["order"] + "B"))

    def steps_of(self, trainer, rank):
        step, calls, self.trainer = trainer.step, [], trainer

        def watched_step(x, y):
            calls.append(1)
            if len(calls) == 2 and rank in self.case.get("_slow_ranks", []):
                time.sleep(0.7)
            if len(calls) != 3 or "_look_closely" not in self.case:  # DDP knows its buckets from the second step on
                loss = step(x, y)
                self.told["scales"].append(trainer.precision.scaler.get_scale())
                return loss
            self.told["order"] = ""
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
                loss = step(x, y)
            self.told["order_of_step"] = self.told["order"]
            self.told["messages"] = dict(Counter(e.name for e in profile.events() if e.name.startswith("gloo:")))
            grads = [p.grad for p in self.parameters() if p.grad is not None and not isinstance(p, DTensor)]
            self.told["storages_of_gradients"] = len({grad.untyped_storage().data_ptr() for grad in grads})
            return loss

        backward, trainer.step = trainer.precision.backward, watched_step
        trainer.precision.backward = lambda loss: (self.told.update(sharded_after_forward=self.sharded()), backward(loss))
        return trainer

    def sharded(self):
        return sum(isinstance(p, DTensor) for p in self.parameters())

    def parameters(self):
        return list(self.trainer.model.parameters()) if hasattr(self.trainer, "model") else []

    def check_weights(self, state, skeleton, place):
        digest = hashlib.sha256()
        for name, _ in skeleton.named_parameters():
            digest.update(state[name].detach().contiguous().numpy().tobytes())
        self.told |= {"weights": digest.hexdigest(), "updates": getattr(self.trainer, "version", None)}
        CHECK_WEIGHTS(state, skeleton, place)

    def __deepcopy__(self, _memo):  # hooks go into DataParallel's replicas, too
        return self
