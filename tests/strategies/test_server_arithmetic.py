"""The parameter server, driven with a script of pushes on two weights: each update is worked out by hand.

No process is started. Messages go through a stand-in for torch.distributed that delivers one push after the other, so that the order
in which workers arrive, which decides what `async` and `ssp` do, is of our choice.
"""

import threading
import time
from collections import Counter
from concurrent import futures

import pytest
import torch
from torch import nn

from labkit.rows.spec import Spec
from labkit.strategies import parameter_server
from labkit.strategy import Place, Precision
from tests.helpers.workers import CPU

LIMIT_S = 20.0  # so that a test that waits for a push ends
PLAIN = {"strategy": "parameter_server", "world_size": 2, "batch_per_rank": 1, "weight_decay": 0.0, "warmup_fraction": 0.0}
PLAIN |= {"lr": 0.5, "momentum": 0.0, "lr_schedule": "constant"}


class Script:
    """Delivers `pushes`, each (worker, gradient, sound), in their order; the next when the one before was taken. Keeps the
    replies as (worker, first weight)."""

    def __init__(self, pushes, used=(1, 1)):
        self.pushes, self.used = [(*push, True)[:3] for push in pushes], used
        self.replies, self.next, self.changed = [], 0, threading.Condition()
        self.server = None

    def new_group(self, ranks, backend):
        return tuple(ranks)

    def taken(self):
        """Was each push so far taken: held by the server, or replied to?"""
        answered, held = Counter(worker for worker, _ in self.replies), Counter(list(self.server.arrived))
        given = Counter(worker for worker, _, _ in self.pushes[: self.next])
        return all(answered[worker] + held[worker] == n for worker, n in given.items())

    def recv(self, message, worker, group):
        assert group == (worker, 2), f"worker {worker} is heard on its own link, not {group}"
        end = time.monotonic() + LIMIT_S
        while True:
            with self.changed:
                if self.next < len(self.pushes) and self.pushes[self.next][0] == worker and self.taken():
                    _, gradient, sound = self.pushes[self.next]
                    message.copy_(torch.tensor([sound, *self.used, gradient, 10 * gradient], dtype=torch.float32))
                    self.next += 1
                    return
            if time.monotonic() > end:
                raise RuntimeError(f"worker {worker} pushes nothing more")
            time.sleep(0.0005)

    def send(self, weights, worker, group):
        assert group == (worker, 2), f"worker {worker} is answered on its own link, not {group}"
        with self.changed:
            self.replies.append((worker, round(float(weights[0]), 6)))


def weights_of(*values):
    """A model of single weights with these values."""
    model = nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in values))
    with torch.no_grad():
        for layer, value in zip(model, values, strict=True):
            layer.weight.fill_(value)
    return model


def made(monkeypatch, dist, model, rank, steps_per_epoch=2, epochs=1, **fields):
    monkeypatch.setattr(parameter_server, "dist", dist)
    monkeypatch.setattr(parameter_server, "broadcast_from_rank0", lambda tensors: None)
    monkeypatch.setattr(parameter_server, "rank0_buffers", lambda model: {})
    return parameter_server.ParameterServer(model, Spec(**PLAIN | fields), Place(rank, 3, CPU, steps_per_epoch, epochs))


@pytest.fixture
def serve(monkeypatch):
    """Let a server with the weights 1 and 1 take a script; returns it and the script."""

    def served(pushes, steps, used=(1, 1), **fields):
        script = Script(pushes, used)
        server = script.server = made(monkeypatch, script, weights_of(1.0, 1.0), 2, steps_per_epoch=steps, **fields)
        for step in range(server.place.total_steps):
            assert server.step(None, None) is None, "a server sees no loss"
            assert (step + 1) % steps or not (server.arrived or server.listening), "at an epoch's end nothing is awaited"
        assert script.next == len(pushes), "all was taken"
        return server, script

    return served


def test_async_makes_one_update_of_each_push(serve):
    server, script = serve([(1, 0.2), (1, 0.2), (0, 0.4), (0, 0.1)], 2)
    assert script.replies == [(1, 0.9), (1, 0.8), (0, 0.6), (0, 0.55)], "weight - 0.5 * gradient, sent to whom it came from"
    assert server.parameters[1].item() == pytest.approx(1 - 5 * 0.9), "the second weight's gradients were ten times these"
    assert server.measured() == {"pushed": 4, "applied": 4, "staleness": {0: 3, 2: 1}}, "worker 0 computed on two updates before"
    assert server.version == 4


def test_async_makes_an_update_each_of_pushes_that_came_at_once(serve, monkeypatch):
    monkeypatch.setattr(parameter_server, "wait", lambda listening, **_: futures.wait(listening))
    monkeypatch.setattr(Script, "taken", lambda _: True)
    server, script = serve([(0, 0.2), (1, 0.2)], 1)
    assert [sent for _, sent in script.replies] == [0.9, 0.8] and server.measured()["staleness"] == {0: 1, 1: 1}


def test_sync_makes_one_update_of_the_mean(serve):
    server, script = serve([(0, 0.2), (1, 0.4), (1, 0.1), (0, 0.3)], 2, consistency="sync")
    assert sorted(script.replies) == [(0, 0.75), (0, 0.85), (1, 0.75), (1, 0.85)], "weight - 0.5 * mean, the same for both"
    assert server.measured() == {"pushed": 4, "applied": 4, "staleness": {0: 4}} and server.version == 2


def test_ssp_waits_where_a_worker_would_fall_too_far_behind(serve):
    """Bound 1: worker 0's first push is applied alone, its second waits for worker 1; together they are one update of the mean."""
    pushes = [(0, 0.2), (0, 0.4), (1, 0.2), (1, 0.6)]
    server, script = serve(pushes, 2, consistency="ssp", staleness_bound=1)
    assert script.replies[0] == (0, 0.9) and sorted(script.replies[1:3]) == [(0, 0.75), (1, 0.75)]
    assert script.replies[3:] == [(1, 0.45)]
    assert server.measured() == {"pushed": 4, "applied": 4, "staleness": {0: 3, 1: 1}} and server.version == 3


@pytest.mark.parametrize("consistency", ["async", "sync"])
def test_the_schedule_follows_the_steps_of_a_worker(serve, consistency):
    """Four steps of two workers, linear from 0.8 down: 0.8, 0.6, 0.4 and 0.2, whether a step makes one update or two."""
    pushes = [(worker, 0.1) for _ in range(4) for worker in (0, 1)]
    _, script = serve(pushes, 2, epochs=2, consistency=consistency, lr=0.8, lr_schedule="linear")
    weight, expected = 1.0, []
    for rate in (0.8, 0.6, 0.4, 0.2):
        if consistency == "async":
            expected += [weight - 0.1 * rate, weight - 0.2 * rate]
            weight -= 0.2 * rate
        else:
            weight -= 0.1 * rate
            expected += [weight] * 2
    assert [sent for _, sent in script.replies] == pytest.approx(expected)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_and_weight_decay_go_on_over_epochs(serve, nesterov):
    """Three epochs of one step of two pushes, gradient 0.1: the formula of SGD, without a break."""
    pushes = [(worker, 0.1) for _ in range(3) for worker in (0, 1)]
    _, script = serve(pushes, 1, epochs=3, momentum=0.5, nesterov=nesterov, weight_decay=0.1)
    weight, velocity, expected = 1.0, 0.0, []
    for _ in range(6):
        gradient = 0.1 + 0.1 * weight
        velocity = 0.5 * velocity + gradient
        weight -= 0.5 * (gradient + 0.5 * velocity if nesterov else velocity)
        expected.append(weight)
    assert [sent for _, sent in script.replies] == pytest.approx(expected, abs=1e-5)


def test_a_gradient_that_overflowed_is_left_out(serve):
    """Alone it makes no update of the weights; beside a sound one, the sound one counts alone. It is counted as pushed, and its
    turn in the schedule is gone."""
    inf = float("inf")
    fields = {"amp": True, "amp_dtype": "fp16", "lr": 0.8, "lr_schedule": "linear"}
    server, script = serve([(0, 0.1), (1, inf, False), (0, inf, False), (1, 0.1)], 2, **fields)
    assert script.replies == [(0, 0.92), (1, 0.92), (0, 0.92), (1, 0.88)], "rates of 0.8 and 0.4 for two pushes each"
    assert server.measured()["applied"] == 4
    server, script = serve([(0, inf, False), (1, 0.1)], 1, **fields, consistency="sync")
    assert sorted(script.replies) == [(0, 0.92), (1, 0.92)], "not halved: the mean of one"


def test_a_weight_that_was_not_used_stays(serve):
    """It came without a gradient: zeros in the message would let weight decay and momentum move it."""
    server, _ = serve([(0, 0.1), (1, 0.1)], 1, used=(1, 0), weight_decay=0.1, momentum=0.9)
    assert server.parameters[0].item() < 0.9 and server.parameters[1].item() == 1.0


def test_no_worker_is_heard_beyond_the_epoch(serve):
    """Worker 0 is ready for the second epoch before worker 1 has ended the first; the server asks it only then. The weights of
    an epoch's end are those after its pushes, all of them."""
    _, script = serve([(0, 0.1), (0, 0.1), (1, 0.1), (1, 0.1), (0, 0.1), (1, 0.1), (1, 0.1), (0, 0.1)], 2, epochs=2)
    assert [worker for worker, _ in script.replies] == [0, 0, 1, 1, 0, 1, 1, 0]


def test_after_an_epoch_everyone_has_the_servers_weights(serve, monkeypatch):
    """Where workers may be stale, `state` sends them; and the next gradient of a worker that took them is not stale."""
    server, script = serve([(0, 0.1), (1, 0.1)], 1)
    sent = []
    script.broadcast = lambda weights, src: sent.append((src, weights.tolist()))
    state = server.state()
    assert sent == [(2, [pytest.approx(0.9), pytest.approx(0.0)])] and state["0.weight"].item() == pytest.approx(0.9)
    assert server.read == {0: 2, 1: 2}
    worker = made(monkeypatch, script, weights_of(5.0, 5.0), 1)
    script.broadcast = lambda weights, src: weights.copy_(torch.tensor([0.25, 0.75]))
    assert [float(value) for value in worker.state().values()] == [0.25, 0.75]


# -- the worker -----------------------------------------------------------------------------------------------------


class Link:
    """The other end of worker 0: keeps what it pushes, and replies with the weights 3 and 4."""

    def __init__(self):
        self.pushed = []

    def new_group(self, ranks, backend):
        return tuple(ranks)

    def send(self, message, to, group):
        assert (to, group) == (2, (0, 2))
        self.pushed.append(message.tolist())

    def recv(self, weights, source, group):
        assert (source, group) == (2, (0, 2))
        weights.copy_(torch.tensor([3.0, 4.0]))


class Product(nn.Sequential):
    """Logits (0, a * b * x) for an image x."""

    def forward(self, x):
        return torch.cat([torch.zeros_like(x), super().forward(x)], 1)


@pytest.mark.parametrize("amp", [False, True])
def test_a_worker_pushes_the_gradient_itself(monkeypatch, amp):
    """Of weights 1 and 0.5, an image 2 of class 1: the loss is log(1 + exp(-1)), its gradient is -2 and -1 of the logit's 0.2689...
    With fp16 it was computed of a loss 65536 times as large, and the server must not see that."""
    link, model = Link(), Product(*weights_of(1.0, 0.5))
    worker = made(monkeypatch, link, model, 0, amp=amp, amp_dtype="fp16" if amp else "auto")
    loss = worker.step(torch.tensor([[2.0]]), torch.tensor([1]))
    assert float(loss) == pytest.approx(0.31326, rel=1e-3)
    (header, *gradients), chance = (link.pushed[0][:3], *link.pushed[0][3:]), 0.268941
    assert header == [1, 1, 1] and gradients == pytest.approx([-1.0 * chance, -2.0 * chance], rel=2e-3)
    assert [p.item() for p in model.parameters()] == [3, 4], "and it goes on with the weights that it is sent"


def test_a_worker_tells_an_overflow_and_halves_its_scale(monkeypatch):
    link, model = Link(), Product(*weights_of(1.0, 0.5))
    worker = made(monkeypatch, link, model, 0, amp=True, amp_dtype="fp16")
    scale = worker.precision.scaler.get_scale()
    worker.step(torch.tensor([[1e4]]), torch.tensor([0]))
    assert link.pushed[0][0] == 0 and worker.precision.scaler.get_scale() == scale / 2


def test_unscale_gives_the_gradient_back():
    precision = Precision(Spec(amp=True, amp_dtype="fp16"), Place(0, 1, CPU, 1, 1))
    gradient = torch.tensor([1.0, -0.5, 3e-7])
    scaled = gradient * precision.scaler.scale(torch.ones(()))
    assert not torch.equal(scaled, gradient)
    assert precision.unscale(scaled) is True and torch.equal(scaled, gradient)
    assert precision.unscale(torch.tensor([1.0, float("nan")])) is False
