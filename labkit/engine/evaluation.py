"""Test accuracy of a strategy's weights, with BatchNorm statistics that fit these weights.

While it trains, BatchNorm keeps running means and variances of its inputs, and moves them by a tenth in each step. When the
weights change fast, they describe weights of ten steps ago: then a network that has learned well answers almost at random. With
five steps in an epoch this hides ten epochs of learning. And each rank of a data-parallel run has statistics of its own images.

So the statistics are taken anew before each evaluation, from a sample of the training images, with the weights that are
evaluated. (Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, call it PreciseBN.) Each process takes a part of the sample;
then the processes average. `bn_statistics=running` evaluates the running statistics of rank 0 instead, as DDP ships them.
"""

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call

from labkit.data.batches import Data
from labkit.rows.spec import Spec
from labkit.strategy import Place, Precision

LEAST_IMAGES = 256  # of the sample; CONTRIBUTING.md has the measurement that chose it
SHARE = 16  # the sample is one in so many of the training images, if that is more
BATCH = 256  # images at a time


class Evaluation:
    """What one process needs to evaluate weights: its part of the test images, and of the sample of training images.

    `skeleton`: the model without weights (on the device "meta"), as `loop.build` makes it. Images are decoded once and kept as
    uint8, one byte a value."""

    def __init__(self, skeleton: nn.Module, data: Data, spec: Spec, place: Place):
        self.skeleton, self.data, self.place, self.precision = skeleton, data, place, Precision(spec, place)
        self.norms = {name: one for name, one in skeleton.named_modules() if isinstance(one, nn.BatchNorm2d)}
        self.takes_statistics = bool(self.norms) and spec.bn_statistics == "fresh"
        self.test, self.labels = data.test_part(place.rank, place.processes)
        if self.takes_statistics:
            sample = sample_of(data.train_labels.cpu().numpy(), spec.seed)
            self.sample = data.decode(data.raw[sample[place.rank :: place.processes]])
            for norm in self.norms.values():
                norm.momentum = None  # a plain average over the batches

    @torch.no_grad()
    def accuracy_pct(self, state: dict[str, Tensor]) -> float:
        """Test accuracy in percent of `state`: weights and buffers by name. Every process calls it: each counts the correct
        answers on its part of the test images, then the counts are added."""
        if self.takes_statistics:
            state = state | self.statistics(state)
        self.skeleton.eval()
        correct = torch.zeros((), dtype=torch.float64, device=self.data.device)
        for images, labels in zip(self.test.split(BATCH), self.labels.split(BATCH), strict=True):
            correct += (self.forward(state, images).argmax(1) == labels).sum()
        (correct,) = self.added([correct.cpu().reshape(1)])
        return 100 * float(correct) / len(self.data.raw_test)

    def forward(self, state: dict[str, Tensor], images: Tensor) -> Tensor:
        """The network's answers (b, classes) for images (b, size, size, c) uint8, with these weights and buffers."""
        with self.precision.autocast():
            return functional_call(self.skeleton, state, (self.data.normalised(images.to(self.data.device)),))

    def statistics(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """BatchNorm's buffers for these weights, by name, equal on every process."""
        fresh = {
            f"{name}.{buffer}": torch.zeros_like(state[f"{name}.{buffer}"])
            for name in self.norms
            for buffer in ("running_mean", "running_var", "num_batches_tracked")
        }
        self.skeleton.train()
        for images in self.sample.split(BATCH):
            self.forward(state | fresh, images)  # BatchNorm writes into the buffers that it is given
        means = {name: buffer for name, buffer in fresh.items() if not name.endswith("tracked")}
        part = torch.tensor([float(len(self.sample))], dtype=torch.float64)
        sums = self.added([part, *(buffer.double().cpu() * part for buffer in means.values())])
        for buffer, total in zip(means.values(), sums[1:], strict=True):
            buffer.copy_(total / sums[0])
        return fresh

    def added(self, numbers: list[Tensor]) -> list[Tensor]:
        """Flat float64 tensors in host memory, each summed over all processes, in one message."""
        message = torch.cat(numbers)
        if self.place.processes > 1:
            parts = [torch.empty_like(message) for _ in range(self.place.processes)]
            dist.all_gather(parts, message)
            message = torch.stack(parts).sum(0)  # in the order of ranks: the same sum on every process
        return list(message.split([len(one) for one in numbers]))


def sample_of(labels: np.ndarray, seed: int) -> np.ndarray:
    """The indices of a sample of the training images, in which every class has the share that it has among all. A sample that
    ignores classes needs twice as many images for the same accuracy. `labels`: (n,)."""
    rng = np.random.default_rng(seed)
    by_class = np.argsort(labels[mixed := rng.permutation(len(labels))], kind="stable")
    size = min(len(labels), max(LEAST_IMAGES, len(labels) // SHARE))
    spread_out = (np.arange(size) + 0.5) * len(labels) / size
    return rng.permutation(mixed[by_class[spread_out.astype(int)]])
