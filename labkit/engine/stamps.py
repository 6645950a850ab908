"""When messages are called, when they end, and when the rank goes on: time stamps around every message of this process.

For probes (`labkit.probes.trace`, `labkit.probes.wire`). A run only counts its messages.
"""

import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from labkit.engine.counted import COUNTER

TRIAL_BYTES = 4 * 2**20


class Stamps:
    """When each message of this rank was called, ended, and let it go on: dicts in `messages`, in the order of the calls.

    verb, bytes   as counted.py counts them
    peer          the other rank of a send or a receive; None for a collective
    members       the ranks that take part; of a send or a receive: [from, to]
    turn          which message of these members it is: 0, 1, ...; so ranks find the same message in each other's list
    called, ended, waited, went_on   seconds of the monotonic clock. From `waited` on the rank did nothing but wait for it, until it
                  went_on; both are None if that was not seen. ended is None while the message is under way

    A message ends when its future is complete: gloo's thread calls us then. Messages without a future (send, receive, gloo's
    reduce-scatter) end when Work.wait returns. A rank goes on when Work.wait returns. DDP waits in C++, inside backward: what was
    called in backward and never waited for in Python lets the rank go on when backward returns. NCCL's messages end on the device,
    which these stamps would not see: they are left out."""

    def __init__(self, precision: Any):
        self.messages: list[dict[str, Any]] = []
        self.of_work: dict[Any, dict[str, Any]] = {}
        self.turns: Counter[tuple[Any, ...]] = Counter()
        self.lock = threading.Lock()
        COUNTER.count()
        COUNTER.seen = self.seen
        wait, backward = dist.Work.wait, precision.backward

        def timed_wait(work: Any, *arguments: Any, **more: Any) -> Any:
            waited = time.monotonic()
            out = wait(work, *arguments, **more)
            if message := self.of_work.pop(work, None):
                message |= {"waited": waited, "went_on": time.monotonic()}
                message["ended"] = min(message["ended"] or message["went_on"], message["went_on"])
            return out

        def timed_backward(loss: Tensor) -> None:
            first = len(self.messages)
            backward(loss)
            for message in self.messages[first:]:
                if message["ended"] and not message["went_on"]:
                    message |= {"waited": message["ended"], "went_on": time.monotonic()}

        dist.Work.wait, precision.backward = timed_wait, timed_backward  # type: ignore[assignment, method-assign]

    def seen(self, verb: str, n: int, peer: int | None, group: Any, work: Any, in_host_memory: bool, called: float) -> None:
        """A message was started (see `Counter` in counted.py)."""
        if verb == "barrier" or not (in_host_memory or dist.get_backend(group) == "gloo"):
            return
        me, members = dist.get_rank(), dist.get_process_group_ranks(group)
        if peer is not None:
            members = [me, peer] if verb == "send" else [peer, me]
        message: dict[str, Any] = {"verb": verb, "bytes": n, "peer": peer, "members": members, "called": called}
        message |= dict.fromkeys(("ended", "waited", "went_on"))
        with self.lock:
            these = (peer is not None, *members)
            message["turn"] = self.turns[these]
            self.turns[these] += 1
            self.of_work[work] = message
            self.messages.append(message)

        def ended(_future: Any) -> None:
            message["ended"] = message["ended"] or time.monotonic()

        with suppress(RuntimeError):  # "Work::getFuture not implemented"
            work.get_future().add_done_callback(ended)

    def ended(self) -> list[dict[str, Any]]:
        """Copies of the messages that have ended so far. (A server always waits for one that has not.)"""
        return [dict(message) for message in self.messages if message["ended"]]

    def of_trial(self, rank: int) -> list[dict[str, Any]]:
        """Send a number and then TRIAL_BYTES, each by an all-reduce, and from rank 0 to rank 1. Returns these messages. Every rank
        calls it."""
        first = len(self.messages)
        for message in (torch.zeros(1), torch.zeros(TRIAL_BYTES // 4)):
            dist.all_reduce(message)
            if rank < 2:
                dist.send(message, 1) if rank == 0 else dist.recv(message, 0)
        ways = [list(range(dist.get_world_size())), [0, 1]]  # a server's threads may call others meanwhile
        return [dict(one) for one in self.messages[first:] if one["ended"] and one["members"] in ways]
