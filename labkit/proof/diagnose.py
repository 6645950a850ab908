"""From what the ranks of a proof found (see `rank.py`) to one sentence: what differs from `single`, and what that usually means.

Plain Python. The mistakes are looked for in the order in which one hides another: a rank that starts from other weights has wrong
gradients, too, and wrong gradients make a wrong momentum.
"""

from dataclasses import dataclass
from typing import Any

from labkit.proof.cases import CASES, FIRST, MOST, STRONG

CLOSE = 0.01  # of a factor, and of what may be left of an update that is explained
TRAPS = {"0.0.bias": "the frozen one", "1.0.weight": "the tied one", "2.never": "the one that never gets a gradient"}
Told = list[dict[str, Any]]  # by rank


@dataclass(frozen=True)
class Finding:
    """What was found. `fault`: a word for it, "" if the strategy ends at single's weights. `message`: what differs and what that usually
    means; `hint`: what to do; `where`: the first parameter that differs."""

    fault: str
    message: str
    hint: str = ""
    where: str = ""


def diagnose(told: Told, ranks: int, splits_batch: bool) -> Finding:
    """`told`: what `prove_rank` returned on each rank. `ranks`: Spec.world_size. `splits_batch`: each rank has images of its own."""
    first = told[0][FIRST]
    if names := sorted({name for rank in told for name in rank[FIRST]["names"]}):
        return Finding("names", f"state() has other names than the plain model: {', '.join(names[:4])}.",
                       "Return the names of the model that was given to __init__, and all of its weights and buffers.")  # fmt: skip
    if found := of_shards([rank[FIRST]["shard"] for rank in told], ranks if splits_batch else 1):
        return found
    for case in CASES:
        steps = [rank[case]["steps"] for rank in told if "steps" in rank[case]]
        most = MOST[CASES[case][0]]
        for number in range(len(first["steps"]) if steps else 0):
            at = [rank[number] for rank in steps]
            wrong = {
                key: [r for r, step in enumerate(at) if not step["parameters"][key]["difference"] <= most]
                for key in at[0]["parameters"]
            }
            wrong = {key: of_ranks for key, of_ranks in wrong.items() if of_ranks}
            if wrong:
                key, r = min(((key, of_ranks[0]) for key, of_ranks in wrong.items()), key=lambda pair: pair[1])
                far = at[r]["parameters"][key]["difference"]
                where = f"First seen on the model '{case}' after step {number + 1}: {called(key)} on rank {r} is {far:.1e} away from single's (relative)."
                found = of_step(case, number, steps, wrong, ranks)
                return Finding(found.fault, found.message, found.hint, where)
            if others := sorted({key for step in at for key in step["others"]}):
                return Finding("buffers", f"The parameters are single's, but {others[0]} in state() is not.",
                               "Return rank 0's buffers on every rank: labkit.strategy.rank0_buffers.")  # fmt: skip
    losses = [(r, step["loss"]) for r, rank in enumerate(told) for step in first_steps(rank) if step["loss"] is not None]
    if not losses:
        return Finding(
            "loss", "The weights are single's, but step() returns no loss on any rank.", "Return what forward_backward returns."
        )
    for r, loss in losses:
        if abs(loss - 1) > CLOSE:
            return Finding("loss", f"The weights are single's, but the loss that step() returns on rank {r} is {loss:.2f} times the mean loss of its images.",
                           "Return what forward_backward returns.")  # fmt: skip
    return Finding("", "")


def first_steps(rank: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of the first case."""
    return rank[FIRST]["steps"]


def of_shards(shards: list[list[int] | None], parts: int) -> Finding | None:
    """Do the ranks together train every image of a step, and no image twice?"""
    given = [tuple(shard) for shard in shards if shard]
    if not given:
        return Finding(
            "shards", "No rank has a shard, so no image is trained.", "Set self.shard = (place.rank, place.processes)."
        )
    told = ", ".join(
        f"rank {rank}: {'none' if shard is None else f'part {shard[0]} of {shard[1]}'}" for rank, shard in enumerate(shards)
    )
    if {n for _, n in given} != {parts} or {i for i, _ in given} != set(range(parts)):
        what = (
            "the same images are trained on several ranks"
            if len(set(given)) < len(given)
            else "some images are trained by no rank"
        )
        return Finding("shards", f"The ranks do not divide each step's images into {parts} parts, one for each ({told}): {what}.",
                       "Set self.shard = (place.rank, place.processes).")  # fmt: skip
    return None


def called(key: str) -> str:
    """A parameter in a sentence."""
    return f"{key} ({TRAPS[key]})" if key in TRAPS else key


def of_step(case: str, number: int, steps: list[list[dict[str, Any]]], wrong: dict[str, list[int]], ranks: int) -> Finding:
    """The first step that differs. `wrong`: the parameters that do, and the ranks on which they do."""
    at = [rank[number] for rank in steps]
    bad = sorted({r for of_ranks in wrong.values() for r in of_ranks})
    if any(step["parameters"][key]["difference"] == float("inf") for step in at for key in wrong):
        return Finding(
            "not finite",
            "The weights are not finite after the step.",
            "Look for a division by 0, and for memory that was never filled.",
        )
    if started := {key: r for r, step in enumerate(rank[0] for rank in steps) for key in step["started"]}:
        return Finding("start", f"Not all ranks start from rank 0's weights: {called(min(started))} on rank {started[min(started)]} is near the weights that another rank has drawn. The first weights were not broadcast.",
                       "Call broadcast_from_rank0([*model.parameters(), *model.buffers()]) in __init__, before the optimizer is made.")  # fmt: skip
    for key in wrong:
        if not at[0]["parameters"][key]["should"]:
            what = "frozen" if key == "0.0.bias" else "never used by the loss"
            return Finding("unused", f"{called(key)} was changed. It is {what} and has no gradient, so single leaves it alone. With a gradient of zeros, weight decay and momentum change it.",
                           "Leave out parameters whose .grad is None.")  # fmt: skip
    if "momentum" in case and (found := of_sgd([at[r]["sgd"] for r in bad])):
        return found
    if found := of_history(number, steps, bad):
        return found
    used = [key for key, one in at[0]["parameters"].items() if one["should"]]
    everything = set(used) <= set(wrong)
    labels = {key: {label(at[r]["parameters"][key]) for r in of_ranks} for key, of_ranks in wrong.items()}
    kinds = {kind for of_key in labels.values() for kind, _ in of_key}
    factors = [factor for of_key in labels.values() for _, factor in of_key]
    which = (
        "Every gradient"
        if everything
        else f"The gradient of {called(min(wrong))}{f' (and of {len(wrong) - 1} more)' * (len(wrong) > 1)}"
    )
    which = f"On rank {', '.join(map(str, bad))}: {which[0].lower()}{which[1:]}" if 0 < len(bad) < len(at) else which
    rest = "" if everything else " The other gradients are right."
    if kinds == {"still"}:
        every = (
            "No parameter was"
            if everything
            else f"{called(min(wrong))}{f' (and {len(wrong) - 1} more)' * (len(wrong) > 1)} was not"
        )
        return Finding(
            "still",
            f"{every} updated in the step.{rest}",
            "Is it in the optimizer, does the optimizer's step happen in each step, and is .grad there when it does?",
        )
    if kinds == {"factor"} and max(factors) - min(factors) < CLOSE * abs(factors[0]):
        return of_factor(factors[0], ranks, which, rest)
    if kinds == {"own"} and max(factors) - min(factors) < CLOSE * abs(factors[0]):
        return Finding("alone", f"{which} is {factors[0]:.2f} times that of the rank's own images: the other ranks' gradients are not in it, so it was not exchanged.{rest}",
                       "Exchange it after backward and before the optimizer's step, on every rank.")  # fmt: skip
    return of_parts([at[r] for r in bad], ranks, which, rest)


def label(one: dict[str, float]) -> tuple[str, float]:
    """What explains the update of one parameter, and its factor."""
    if one["moved"] <= 1e-6 * one["should"]:
        return "still", 0.0
    if one["residual"] < CLOSE:
        return "factor", one["factor"]
    if one["own_residual"] < CLOSE:
        return "own", one["own"]
    return "other", 0.0


def near(value: float, wanted: float) -> bool:
    """Are two factors the same?"""
    return abs(value - wanted) <= CLOSE * max(1.0, abs(wanted))


def of_factor(factor: float, ranks: int, which: str, rest: str) -> Finding:
    """One factor explains all that differs."""
    text = f"{which} is {factor:.2f} times single's"
    if near(factor, ranks):
        return Finding("sum", f"{text}: the ranks' gradients were added and not divided by the number of ranks.{rest}",
                       f"Divide the sums by the number of ranks ({ranks} here: place.processes).")  # fmt: skip
    if near(factor, 1 / ranks):
        return Finding("divided twice", f"{text}: it was divided by the number of ranks twice.{rest}",
                       "Look for a second division: of the loss, by ReduceOp.AVG, by DDP, or in the learning rate.")  # fmt: skip
    if near(factor, -1):
        return Finding(
            "sign", f"{text}: the update goes uphill.{rest}", "An optimizer subtracts the gradient; do not change its sign."
        )
    return Finding("factor", f"{text}. The mean over {ranks} ranks was expected, so something multiplies it.{rest}",
                   "Count the all-reduces and the divisions that the gradient goes through.")  # fmt: skip


def of_history(number: int, steps: list[list[dict[str, Any]]], bad: list[int]) -> Finding | None:
    """Does a gradient of the step before go into the update? If nothing moved in the first step, the second one says."""
    still = number == 0 and all(one["moved"] <= 1e-6 * one["should"] for rank in steps for one in rank[0]["parameters"].values())
    at = [rank[1 if still else number]["history"] for rank in steps if len(rank) > 1]
    if not at or not all(fit and fit[-1] < CLOSE for fit in at):
        return None
    fresh, old = at[0][:2]
    if near(fresh, 0) and not near(old, 0):
        return Finding("stale", f"Each update is made of the gradients of the step before ({old:.2f} times) and not of this step's: the gradients are stale by one step.",
                       "Wait for the exchange of this step before the optimizer's step.")  # fmt: skip
    if near(fresh, 1) and near(old, 1):
        return Finding("accumulated", "The gradients of the step before are in the update as well: they were never set to zero.",
                       "Call self.optimizer.zero_grad() at the beginning of each step.")  # fmt: skip
    return None


def of_sgd(fits: list[list[float]]) -> Finding | None:
    """The gradients were right in plain SGD: are momentum, weight decay and learning rate those of the Spec?"""
    *counts, left = fits[0]
    if left > CLOSE:
        return None
    wanted = dict(zip(("gradient", "weight decay", "momentum"), (1.0, STRONG["weight_decay"], STRONG["momentum"]), strict=True))
    found = dict(zip(wanted, counts, strict=False))
    if not near(found["gradient"], 1) and all(near(found[key] / wanted[key], found["gradient"]) for key in found):
        return Finding("learning rate", f"The learning rate is {found['gradient']:.2f} times that of single in this step: the schedule is not followed.",
                       "Make the update with self.precision.step(self.optimizer), which sets the learning rate of each step.")  # fmt: skip
    for key in ("momentum", "weight decay"):
        if near(found["gradient"], 1) and key in found and not near(found[key] / wanted[key], 1):
            what = "the last update counts" if key == "momentum" else "the weights count"
            return Finding(key, f"The gradients are right, and the {key} is not: {what} {found[key]:.2f} times in the new one, where {wanted[key]:g} is expected.",
                           "Make one optimizer in __init__ with make_optimizer(model, spec), and keep it.")  # fmt: skip
    return None


def of_parts(at: list[dict[str, Any]], ranks: int, which: str, rest: str) -> Finding:
    """No single factor explains it: how many times does the gradient of each rank's images count?"""
    if all(step["parts"][-1] < CLOSE for step in at):
        counts = at[0]["parts"][:-1]
        told = ", ".join(f"rank {part}'s {count:.2f}" for part, count in enumerate(counts))
        alone = [part for part, count in enumerate(counts) if not near(count, 0)]
        if len(alone) == 1 and all(near(step["parts"][alone[0]], counts[alone[0]]) for step in at):
            return Finding("one rank", f"{which} is made of rank {alone[0]}'s images alone ({told} times): what the other ranks computed is thrown away.",
                           "All ranks must add their gradients (all_reduce), not take one rank's (broadcast).")  # fmt: skip
        return Finding("unequal", f"{which} is not the mean over the ranks: {told} times, where each should count {1 / ranks:.2f} times.",
                       "Give every rank's gradient the same weight.")  # fmt: skip
    if all(step["own_buffers"] < CLOSE for step in at):
        return Finding("own buffers", "The ranks compute with other buffers: each with those that it has drawn itself. The buffers were not broadcast.",
                       "Call broadcast_from_rank0([*model.parameters(), *model.buffers()]) in __init__.")  # fmt: skip
    left = min(step["parts"][-1] for step in at)
    return Finding("other", f"{which} is no mixture of the ranks' gradients: {100 * left:.0f} % of the update is something else.{rest}",
                   "Look at what lies in .grad before the optimizer's step, on each rank.")  # fmt: skip
