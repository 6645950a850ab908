"""Workers push gradients to a server, which owns the weights and the optimizer, and pull new weights back.

Li et al., "Scaling Distributed Machine Learning with the Parameter Server" (2014). The last process is the server.
When it applies what was pushed is the `consistency`:

async  each push at once, one update each; meanwhile others compute on weights that grow stale (Hogwild's bargain).
sync   when every worker has pushed: the mean, one update. The same arithmetic as DDP.
ssp    as soon as no worker would fall more than `staleness_bound` updates behind; what has arrived by then is
       averaged into one update. Bound 0 is sync. (Ho et al., 2013, bound the workers' clocks; this bounds the
       updates between reading weights and applying their gradient, the number that is recorded.)

One group per worker joins it to the server, so a worker that dies is known by name. Messages lie in host memory.
"""

from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import torch
import torch.distributed as dist

from labkit.strategy import Precision, broadcast_from_rank0, forward_backward, make_optimizer, rank0_buffers, set_learning_rate


class ParameterServer:
    def __init__(self, model, spec, place):
        self.model, self.spec, self.place = model, spec, place
        self.workers, self.server = range(spec.world_size), spec.world_size
        self.shard = None if place.rank == self.server else (place.rank, spec.world_size)
        broadcast_from_rank0([*model.parameters(), *model.buffers()])
        self.links = [dist.new_group([worker, self.server], backend="gloo") for worker in self.workers]
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.sizes = [p.numel() for p in self.parameters]
        self.version = 0  # updates made to the weights that I hold
        self.precision = Precision(spec, place)
        if self.shard is None:
            self.read = dict.fromkeys(self.workers, 0)  # the version that each worker computes on
            self.pushes = Counter()  # by worker, received so far
            self.applied = self.served = 0
            self.staleness = Counter()  # updates between reading and applying -> how many gradients
            self.listeners, self.listening, self.held = ThreadPoolExecutor(spec.world_size), {}, {}
            self.optimizer = make_optimizer(model, spec)

    def step(self, x, y):
        return self.serve() if self.shard is None else self.work(x, y)

    # -- worker ---------------------------------------------------------------------------------------------------
    def work(self, x, y):
        self.model.zero_grad()
        loss = forward_backward(self.model, x, y, self.precision)
        used = [p.grad is not None for p in self.parameters]
        gradient = flat([torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters])
        sound = self.precision.unscale(gradient)
        link = self.links[self.place.rank]
        dist.send(torch.cat([torch.tensor([sound, *used], dtype=torch.float32), gradient]), self.server, group=link)
        weights = torch.empty_like(gradient)
        dist.recv(weights, self.server, group=link)
        self.hold(weights)
        return loss

    @torch.no_grad()
    def hold(self, weights):
        for mine, new in zip(self.parameters, weights.split(self.sizes), strict=True):
            mine.copy_(new.view_as(mine))

    # -- server ---------------------------------------------------------------------------------------------------
    def serve(self):
        """Apply as many pushes as workers make in one step; which worker's they are is the consistency's affair."""
        self.served += 1
        epoch_end = -(-self.served // self.place.steps_per_epoch) * self.place.steps_per_epoch
        while self.applied < self.served * len(self.workers):
            for worker in self.workers:
                if worker not in self.held and worker not in self.listening.values() and self.pushes[worker] < epoch_end:
                    self.listening[self.listeners.submit(self.receive, worker)] = worker
            for done in wait(self.listening, return_when=FIRST_COMPLETED).done:
                self.held[self.listening.pop(done)] = done.result()
            if self.may_update():
                together = [[worker] for worker in self.held] if self.spec.consistency == "async" else [list(self.held)]
                for workers in together:
                    self.update(workers)

    def receive(self, worker):
        message = torch.empty(1 + len(self.sizes) + sum(self.sizes))
        try:
            dist.recv(message, worker, group=self.links[worker])
        except RuntimeError as error:
            raise RuntimeError(f"the server lost worker {worker}: {error}") from error
        self.pushes[worker] += 1
        return message

    def may_update(self):
        if self.spec.consistency == "async":
            return True
        bound = self.spec.staleness_bound if self.spec.consistency == "ssp" else 0
        return all(self.version + 1 - self.read[worker] <= bound for worker in self.listening.values())

    def update(self, workers):
        """One optimizer step on the mean of these workers' gradients (fp16: of those that did not overflow)."""
        messages = [self.held.pop(worker) for worker in workers]
        self.staleness.update(self.version - self.read[worker] for worker in workers)
        set_learning_rate(self.optimizer, self.spec, self.place.total_steps, self.applied // len(self.workers))
        self.applied += len(workers)
        if sound := [message for message in messages if message[0]]:
            header = 1 + len(self.sizes)
            mean = torch.stack([message[header:] for message in sound]).mean(0)
            for p, used, grad in zip(self.parameters, sound[0][1:header], mean.split(self.sizes), strict=True):
                p.grad = torch.empty_like(p).copy_(grad.view_as(p)) if used else None
            self.optimizer.step()
        self.version += 1
        weights = flat(self.parameters)
        for worker in workers:
            self.read[worker] = self.version
            dist.send(weights, worker, group=self.links[worker])

    # -- both -----------------------------------------------------------------------------------------------------
    def state(self):
        """The server's weights. Where nobody is ever stale, workers must hold the same already, and nothing is sent."""
        if self.spec.consistency == "async" or (self.spec.consistency == "ssp" and self.spec.staleness_bound > 0):
            weights = flat(self.parameters)
            dist.broadcast(weights, src=self.server)
            self.hold(weights)
        if self.shard is None:
            self.read = dict.fromkeys(self.workers, self.version)
        return {**self.model.state_dict(), **rank0_buffers(self.model)}

    def measured(self):
        """What the server counted: {"pushed": n, "applied": n, "staleness": {updates: gradients}}; nothing on a worker."""
        if self.shard is not None:
            return {}
        return {"pushed": self.pushes.total(), "applied": self.applied, "staleness": dict(sorted(self.staleness.items()))}


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).to("cpu", torch.float32)
