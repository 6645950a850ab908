"""Workers push gradients to a server, which owns the weights and the optimizer, and pull new weights back.

Li et al., "Scaling Distributed Machine Learning with the Parameter Server" (2014). The last process is the server.
The `consistency` decides when it applies the pushes:

async  each push at once, one update each; other workers meanwhile compute on weights that grow stale (as in Hogwild).
sync   when every worker has pushed: one update with the mean. The same arithmetic as DDP.
ssp    as soon as no worker would fall more than `staleness_bound` updates behind. All pushes that have arrived by then
       are averaged into one update. Bound 0 is sync. (Ho et al., 2013, bound the workers' clocks; this bounds the
       updates between reading weights and applying their gradient, the number that is recorded.)

Two workers, worker 1 is slower; time from left to right. A worker's line: vK, it computes on the weights after K updates;
P, it pushes; a gap, it waits for the server. The server's line: vK, it makes update K.

    async      worker 0   v0 ... P v1 ... P v3 ...
               server            v1   v2  v3            every push is an update. The first gradient of worker 1 is
               worker 1   v0 ........ P v2 ........     1 update stale when it is applied: v1 was made meanwhile

    sync       worker 0   v0 ... P      v1 ... P
               server                 v1            v2  one update for every two pushes; no gradient is ever stale
               worker 1   v0 ........ P v1 ........ P

    ssp,       worker 0   v0 ... P v1 ... P      v2 ...
    bound 1    server            v1            v2       v1 is allowed: worker 1 is then 1 update behind. v2 must wait:
               worker 1   v0 ................. P v2 ... without worker 1's push it would leave it 2 behind

A process group for each worker joins it to the server, so the server knows which worker died. Messages lie in host memory.
"""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from labkit.rows.spec import Spec
from labkit.strategy import (
    Place,
    Precision,
    broadcast_from_rank0,
    forward_backward,
    make_optimizer,
    rank0_buffers,
    set_learning_rate,
)


class ParameterServer:
    """A strategy. `labkit.strategy.Strategy` says what `shard`, `step` and `state` mean."""

    def __init__(self, model: nn.Sequential, spec: Spec, place: Place):
        self.model, self.spec, self.place = model, spec, place
        self.workers, self.server = range(spec.world_size), spec.world_size
        self.shard = None if place.rank == self.server else (place.rank, spec.world_size)
        broadcast_from_rank0([*model.parameters(), *model.buffers()])
        self.links: list[Any] = [dist.new_group([worker, self.server], backend="gloo") for worker in self.workers]
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.sizes = [p.numel() for p in self.parameters]
        self.version = 0  # the server's: updates that it has made
        self.precision = Precision(spec, place)
        if self.shard is None:
            self.read = dict.fromkeys(self.workers, 0)  # the version that each worker computes on
            self.pushes = Counter()  # by worker, received so far
            self.applied = self.served = 0
            self.staleness = Counter()  # updates between reading and applying -> how many gradients
            self.threads = ThreadPoolExecutor(spec.world_size)  # one for each worker: it waits for that worker's next push
            self.listening = {}  # future of a push that has not arrived -> its worker
            self.arrived = {}  # worker -> its push that has arrived and is not applied yet; the worker waits for new weights
            self.optimizer = make_optimizer(model, spec)

    def step(self, x: Tensor | None, y: Tensor | None) -> Tensor | None:
        """A worker: one push and one pull, from images x (b, c, h, w) and labels y (b,); returns their mean loss. The server is
        called with None, None: it applies as many pushes as there are workers, and returns None."""
        if self.shard is None:
            self.serve()
            return None
        return self.work(x, y)

    # -- worker ---------------------------------------------------------------------------------------------------
    def work(self, x, y) -> Tensor:
        """Compute gradients, push them, and pull the weights that the server answers with. Returns the mean loss."""
        # The message is flat: [finite, used of each parameter ..., numbers of each gradient ...]. "used" is 0 for a parameter
        # without a gradient: the server must not update it, and a gradient of zeros would still apply the weight decay.
        self.model.zero_grad()
        loss = forward_backward(self.model, x, y, self.precision)
        used = [p.grad is not None for p in self.parameters]
        gradient = flat([torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters])
        finite = self.precision.unscale(gradient)
        link = self.links[self.place.rank]
        dist.send(torch.cat([torch.tensor([finite, *used], dtype=torch.float32), gradient]), self.server, group=link)
        weights = torch.empty_like(gradient)
        dist.recv(weights, self.server, group=link)
        self.load(weights)
        return loss

    @torch.no_grad()
    def load(self, weights: Tensor) -> None:
        """Copy a flat message of weights into the parameters."""
        for parameter, new in zip(self.parameters, weights.split(self.sizes), strict=True):
            parameter.copy_(new.view_as(parameter))

    # -- server ---------------------------------------------------------------------------------------------------
    def serve(self) -> None:
        """Apply as many pushes as there are workers. They need not be one of each: with async or ssp a fast worker may have
        two pushes applied in this step and a slow one none."""
        # One turn of the loop below, drawn in the order of time (the drawing at the top of this file shows many turns):
        #
        #   1  listen      for every worker whose push we neither hold nor wait for: a thread starts to receive its next one
        #   2  wait        until at least one push arrives; `arrived` holds it, and its worker waits for new weights
        #   3  may_update  does the consistency allow an update now? if not, back to 1
        #   4  update      the optimizer's step on the mean of the pushes; their workers get the new weights and go on
        #
        # A worker makes steps_per_epoch pushes an epoch, and then waits in `state` for the server. So after its last push of the
        # epoch we do not listen to it: `may_update` would count it as still computing, and both sides would wait for ever.
        self.served += 1
        epochs_begun = (self.served - 1) // self.place.steps_per_epoch + 1
        epoch_end = epochs_begun * self.place.steps_per_epoch  # pushes of one worker by the end of this epoch
        while self.applied < self.served * len(self.workers):
            for worker in self.workers:
                if worker not in self.arrived and worker not in self.listening.values() and self.pushes[worker] < epoch_end:
                    self.listening[self.threads.submit(self.receive, worker)] = worker
            for done in wait(self.listening, return_when=FIRST_COMPLETED).done:
                self.arrived[self.listening.pop(done)] = done.result()
            if self.may_update():
                if self.spec.consistency == "async":
                    for worker in list(self.arrived):
                        self.update([worker])
                else:
                    self.update(list(self.arrived))

    def receive(self, worker: int) -> Tensor:
        """Wait for this worker's next push, in a thread. Raises RuntimeError, naming the worker, if it is gone or silent."""
        message = torch.empty(1 + len(self.sizes) + sum(self.sizes))
        try:
            dist.recv(message, worker, group=self.links[worker])
        except RuntimeError as error:
            raise RuntimeError(f"the server lost worker {worker}: {error}") from error
        self.pushes[worker] += 1
        return message

    def may_update(self) -> bool:
        """Would every worker that still computes stay within the bound, if we made an update now?"""
        if self.spec.consistency == "async":
            return True
        bound = self.spec.staleness_bound if self.spec.consistency == "ssp" else 0
        return all(self.version + 1 - self.read[worker] <= bound for worker in self.listening.values())

    def update(self, workers: list[int]) -> None:
        """One optimizer step on the mean of these workers' gradients (fp16: of those that did not overflow). Then send
        these workers the new weights."""
        messages = [self.arrived.pop(worker) for worker in workers]
        self.staleness.update(self.version - self.read[worker] for worker in workers)
        set_learning_rate(self.optimizer, self.spec, self.place.total_steps, self.applied // len(self.workers))
        self.applied += len(workers)
        if finite := [message for message in messages if message[0]]:
            header = 1 + len(self.sizes)
            mean = torch.stack([message[header:] for message in finite]).mean(0)
            for p, used, grad in zip(self.parameters, finite[0][1:header], mean.split(self.sizes), strict=True):
                p.grad = torch.empty_like(p).copy_(grad.view_as(p)) if used else None
            self.optimizer.step()
        self.version += 1
        weights = flat(self.parameters)
        for worker in workers:
            self.read[worker] = self.version
            dist.send(weights, worker, group=self.links[worker])

    # -- both -----------------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        """The server's weights. Where no gradient can be stale (sync, ssp with bound 0), every worker must hold them already.
        Then nothing is sent, so that the loop's comparison of the ranks can find a worker that does not."""
        if self.spec.consistency == "async" or (self.spec.consistency == "ssp" and self.spec.staleness_bound > 0):
            weights = flat(self.parameters)
            dist.broadcast(weights, src=self.server)
            self.load(weights)
        if self.shard is None:
            self.read = dict.fromkeys(self.workers, self.version)
        return {**self.model.state_dict(), **rank0_buffers(self.model)}

    def measured(self) -> dict:
        """What the server counted: {"pushed": n, "applied": n, "staleness": {updates: gradients}}; {} on a worker."""
        if self.shard is not None:
            return {}
        return {"pushed": self.pushes.total(), "applied": self.applied, "staleness": dict(sorted(self.staleness.items()))}


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """All numbers of these tensors in one flat float32 message in host memory."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).to("cpu", torch.float32)
