"""What this rank sends: every message that torch.distributed carries out here, counted by verb and bytes; and what the kernel sent.

Two counts of the same thing, so that each can be held against the other (`tests/strategies/test_bytes.py` does):

messages   what the strategy asked for. Each verb of torch.distributed is an operator `c10d::...` of torch's dispatcher, no matter
           who calls it (Python, DDP's reducer in C++) and what carries it (gloo, NCCL). The dispatcher looks at the key BackendSelect
           before it looks for the kernel of a device, so a kernel of our own at that key sees every message, and passes it on.
sockets    what left this process: the Linux kernel counts the bytes of each TCP socket (struct tcp_info, RFC 4898). With gloo all
           messages travel so. NCCL uses other ways (shared memory, NVLink, InfiniBand), so there it is no count of the messages.
"""

import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import ProcessGroup, Work

VERBS = {  # operator -> the verb as torch.distributed calls it; an operator that is not here counts under its own name
    "allreduce_": "all_reduce",
    "allreduce_coalesced_": "all_reduce",
    "_allgather_base_": "all_gather",
    "allgather_": "all_gather",
    "allgather_coalesced_": "all_gather",
    "allgather_into_tensor_coalesced_": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter",
    "reduce_scatter_": "reduce_scatter",
    "reduce_scatter_tensor_coalesced_": "reduce_scatter",
    "alltoall_": "all_to_all",
    "alltoall_base_": "all_to_all",
    "broadcast_": "broadcast",
    "reduce_": "reduce",
    "gather_": "gather",
    "gather_into_tensor_": "gather",
    "scatter_": "scatter",
    "recv_": "recv",
    "recv_any_source_": "recv",
    "monitored_barrier_": "barrier",
}
NO_MESSAGE = ("check_for_nan",)  # an operator of c10d that sends nothing
TCP_INFO_BYTES = 216  # up to and with bytes_retrans (Linux 4.19 and later)
Seen = Callable[[str, int, "int | None", Any, Any, bool, float], None]


class Counter:
    """Counts the messages of this process from its first `count()` on: `messages` is {verb: [count, bytes]}.

    The bytes of a message are its payload: the larger of what goes into the verb and what comes out of it. So an all-gather and a
    reduce-scatter count the whole tensor, not this rank's part; a barrier counts 0. (`engine.formula.sent_by_formula` says what of it a rank sends.)

    `seen`, for a probe: called after each message was started, with verb, bytes, peer (the other's rank among all; None for a
    verb of the whole group), group, work, whether the tensor lies in host memory, and when it was called (s, monotonic clock)."""

    def __init__(self) -> None:
        self.messages: dict[str, list[int]] = {}
        self.seen: Seen | None = None
        self.lock = threading.Lock()  # a server receives in several threads
        self.library: Any = None

    def count(self) -> None:
        """Begin to count. Calling it again changes nothing. A message costs some 20 µs more from then on."""
        if self.library is not None:
            return
        self.library = torch.library.Library("c10d", "IMPL")
        for full in torch._C._dispatch_get_all_op_names():
            name = full.removeprefix("c10d::")
            if full.startswith("c10d::") and name not in NO_MESSAGE:
                self.library.impl(name, self.kernel(name), "BackendSelect", with_keyset=True)

    def kernel(self, name: str) -> Callable[..., Any]:
        """What the dispatcher calls in place of the operator `name`: it counts the message, and passes it on."""
        operator, verb, here = getattr(torch.ops.c10d, name).default, VERBS.get(name, name), torch._C.DispatchKey.BackendSelect

        def passed_on(keys: Any, *arguments: Any, **more: Any) -> Any:
            called_at = time.monotonic()
            out = operator.redispatch(keys.remove(here), *arguments, **more)
            n = 0 if verb == "barrier" else max(map(bytes_in, arguments[:2]))
            with self.lock:
                counted = self.messages.setdefault(verb, [0, 0])
                counted[0] += 1
                counted[1] += n
            if self.seen:
                group = ProcessGroup.unbox(next(one for one in arguments if isinstance(one, torch.ScriptObject)))
                peer = dist.get_global_rank(group, arguments[2]) if name in ("send", "recv_") else None
                work = Work.unbox(out[-1] if isinstance(out, (tuple, list)) else out)
                self.seen(verb, n, peer, group, work, first_tensor(arguments).device.type == "cpu", called_at)
            return out

        return passed_on


COUNTER = Counter()  # the dispatcher is one for the whole process, so the counter is, too


def bytes_in(argument: Any) -> int:
    """Bytes of a tensor, or of all tensors of a list (of lists); 0 for anything else."""
    if isinstance(argument, Tensor):
        return argument.numel() * argument.element_size()
    return sum(map(bytes_in, argument)) if isinstance(argument, (list, tuple)) else 0


def first_tensor(arguments: Any) -> Tensor:
    """The first tensor among arguments, which may be lists of tensors."""
    return next(
        one if isinstance(one, Tensor) else first_tensor(one)
        for one in arguments
        if isinstance(one, (Tensor, list)) and one != []
    )


class Traffic:
    """What a rank sent in a training step: the mean over the steps between `begin` and `end`. The last pair counts."""

    def __init__(self, sockets: bool):
        """`sockets`: do all messages travel through sockets of this process (gloo)? Else the kernel's count is no count of them."""
        self.sockets = sockets
        self.per_step: dict[str, list[float]] = {}
        self.sent_bytes_per_step: float | None = None
        COUNTER.count()

    def begin(self, step: int) -> None:
        """The steps that count begin with this one."""
        self.first, self.before, self.sent_before = step, now(), sent_bytes() if self.sockets else None

    def end(self, step: int) -> None:
        """They end before this one. Without a step between, nothing changes."""
        sent, steps = sent_bytes() if self.sockets else None, step - self.first
        if not steps:
            return
        self.per_step = {}
        for verb, (count, n) in now().items():
            count_before, n_before = self.before.get(verb, (0, 0))
            if count > count_before:
                self.per_step[verb] = [(count - count_before) / steps, (n - n_before) / steps]
        self.sent_bytes_per_step = None if sent is None or self.sent_before is None else (sent - self.sent_before) / steps


def now() -> dict[str, list[int]]:
    """A copy of what has been counted so far."""
    with COUNTER.lock:
        return {verb: list(counted) for verb, counted in COUNTER.messages.items()}


def sent_bytes() -> int | None:
    """Bytes that this process has given to its open TCP sockets so far, as the kernel counts them, without those that it had to
    send again. None where the kernel does not tell (not Linux)."""
    if sys.platform != "linux":
        return None
    total = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                if one.family not in (socket.AF_INET, socket.AF_INET6) or one.type != socket.SOCK_STREAM:
                    continue
                info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
        except OSError:  # closed meanwhile
            continue
        if len(info) < TCP_INFO_BYTES:
            return None
        not_sent_yet, sent, again = struct.unpack_from("I", info, 144)[0], *struct.unpack_from("QQ", info, 200)
        total += not_sent_yet + sent - again
    return total
