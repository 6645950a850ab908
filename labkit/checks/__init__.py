"""Exercises that explain: a student writes a small function of one rank, the check drives it on simulated ranks.

`check_<name>(function)` answers with a Verdict: passed or not yet, what was called, what came back, what was expected, why. It
shows itself in a notebook, is true where it passed, and is never an exception: a blank gives a readable "not yet".
The whole task stands in each check's docstring. Correct solutions: tests/check_solutions.py. Plain Python; no torch.

check  [groups whose notebooks it suits]
    the student's function
    what to do

check_average_gradients  [1]
    average_gradients(grads_of_ranks: list[list[float]]) -> list[float]
    Make one gradient out of the ranks' gradients, as DDP's all-reduce does: the mean, parameter by parameter.

check_exposed_s  [1, 10]
    exposed_s(ready_s: list[float], message_s: float, backward_s: float) -> float
    How much of the exchange is exposed?

check_shard_of  [1, 6]
    shard_of(order: list[int], rank: int, world_size: int) -> list[int]
    Which images of an epoch's order does a rank train?

check_ring_step  [2, 10]
    ring_step(rank: int, world_size: int, step: int) -> tuple[int, int]
    One step of a ring all-reduce.

check_bytes_sent  [2]
    bytes_sent(n_bytes: float, world_size: int) -> float
    How many bytes does each rank send in a ring all-reduce?

check_message_s  [2]
    message_s(n_bytes: float, latency_s: float, bytes_per_s: float) -> float
    How long does one message take?

check_ring_s  [2, 10]
    ring_s(n_bytes: float, world_size: int, latency_s: float, bytes_per_s: float) -> float
    How long does a ring all-reduce take?

check_gpipe  [3]
    gpipe(stage: int, stages: int, micro_batches: int) -> list[tuple[str, int]]
    GPipe's order for one stage: all forwards, then all backwards.

check_one_f_one_b  [3]
    one_f_one_b(stage: int, stages: int, micro_batches: int) -> list[tuple[str, int]]
    The 1F1B order for one stage: as many forwards as there are stages after it, then one forward and one backward in
    turn, then the backwards that are left.

check_bubble_share  [3]
    bubble_share(stages: int, micro_batches: int) -> float
    Which share of a step does a pipeline's stage stand idle?

check_shard_bounds  [3]
    shard_bounds(length: int, rank: int, world_size: int) -> tuple[int, int, int]
    Cut a flat parameter over the ranks as FSDP does.

check_bytes_per_rank  [3]
    bytes_per_rank(strategy: str, parameters: int, world_size: int) -> float
    What does a rank keep for P parameters, trained by SGD with momentum in fp32?

check_cached_epoch  [4]
    cached_epoch(images: list[str], epoch: int, cache: dict, decode, augment) -> list
    One epoch through a cache.

check_crop_offset  [4]
    crop_offset(seed: int, epoch: int, index: int) -> int
    Draw where image `index` is cropped in an epoch, from (seed, epoch, index) alone.

check_rounded  [5]
    rounded(x: float, fraction_bits: int) -> float
    Round a number as a 16-bit format does (in the middle of its range): x = ±1.f × 2**e, with `fraction_bits` bits for f.

check_loss_scale  [5]
    loss_scale(gradients: list[float], largest: float) -> float
    Choose the scale of the loss: as large as can be, so that small gradients do not vanish in fp16 (whose smallest number
    is about 6e-8), but none overflows (its largest is 65504).

check_amp_step  [5]
    amp_step(weights: list[float], scaled_grads: list[float], scale: float, lr: float) -> tuple[list[float], float]
    One update from the gradients of a scaled loss.

check_steps_per_epoch  [6, 9]
    steps_per_epoch(images: int, batch_per_rank: int, world_size: int, drop_last: bool) -> int
    How many steps has an epoch?

check_mean_loss  [6]
    mean_loss(means: list[float], counts: list[int]) -> float
    The mean loss over all images, from each rank's mean and its number of images, which need not be equal (a last batch).

check_learning_rate  [6, 9]
    learning_rate(step: int, base_lr: float, base_batch: int, batch: int, warmup_steps: int) -> float
    The linear scaling rule with warm-up: a batch k times `base_batch` gets k times `base_lr`.

check_gradient_bytes  [7]
    gradient_bytes(shapes: list[tuple[int, ...]], bytes_per_number: int) -> int
    How many bytes of gradients does a network send in every step?

check_block_parameters  [7]
    block_parameters(cin: int, cout: int, stride: int) -> int
    Count the parameters of ResNet's basic block: a 3×3 convolution cin → cout, a 3×3 convolution cout → cout, each
    without bias and followed by a BatchNorm (two parameters per channel).

check_macs_per_gradient_byte  [7]
    macs_per_gradient_byte(cin: int, cout: int, kernel: int, side: int, batch: int) -> float
    How much does a convolution compute for each byte of gradient that it sends?

check_amdahl  [8]
    amdahl(share: float, factor: float) -> float
    A part that takes `share` of the time becomes `factor` times as fast.

check_step_s  [8, 4]
    step_s(input_s: float, compute_s: float, message_s: float, ahead: bool) -> float
    How long is a step?

check_ladder  [8]
    ladder(images_per_s: list[float]) -> list[float]
    Factors added one by one: from the images/s of each configuration, what did each step bring?

check_accumulated  [9]
    accumulated(gradient, images: list[float], parts: int) -> float
    The gradient of a large batch from smaller ones, one after the other (gradient accumulation).

check_memory_bytes  [9]
    memory_bytes(parameters: int, batch: int, activation_bytes: int) -> int
    What lies in memory in a step: fp32 weights, their gradients and SGD's momentum, 4 bytes each, and `activation_bytes`
    for each image of the batch.

check_largest_batch  [9]
    largest_batch(memory_bytes: int, parameters: int, activation_bytes: int) -> int
    The largest batch that fits in a device's memory, with fp32 weights, gradients and momentum, and `activation_bytes`
    per image.

check_push  [10]
    push(weight: float, version: int, gradient: float, read_version: int, lr: float) -> tuple[float, int, int]
    What an asynchronous server does with one pushed gradient: an SGD step at once, a new version, and the staleness: the
    updates made between reading the weights and applying their gradient.

check_may_update  [10]
    may_update(version: int, computing: list[int], bound: int) -> bool
    Bounded staleness: `computing` lists the versions that the workers still at work have read.

check_after_pushes  [10]
    after_pushes(weight: float, gradients: list[float], lr: float, together: bool) -> float
    The workers' gradients of one step, all computed on the same weight.

check_server_bytes  [10]
    server_bytes(n_bytes: int, workers: int) -> int
    How many bytes pass through a parameter server's link while every worker makes one step?
"""

from labkit.checks.batches import (
    check_accumulated,
    check_largest_batch,
    check_learning_rate,
    check_mean_loss,
    check_memory_bytes,
    check_steps_per_epoch,
)
from labkit.checks.collectives import (
    check_average_gradients,
    check_bytes_sent,
    check_exposed_s,
    check_message_s,
    check_ring_s,
    check_ring_step,
)
from labkit.checks.costs import check_block_parameters, check_gradient_bytes, check_macs_per_gradient_byte
from labkit.checks.data import check_cached_epoch, check_crop_offset, check_shard_of
from labkit.checks.judge import EXERCISES, Exercise, Verdict
from labkit.checks.schedules import check_bubble_share, check_gpipe, check_one_f_one_b
from labkit.checks.server import check_after_pushes, check_may_update, check_push, check_server_bytes
from labkit.checks.sharding import check_bytes_per_rank, check_shard_bounds
from labkit.checks.speed import check_amdahl, check_ladder, check_step_s
from labkit.checks.updates import check_amp_step, check_loss_scale, check_rounded

__all__ = [
    "EXERCISES",
    "Exercise",
    "Verdict",
    "check_accumulated",
    "check_after_pushes",
    "check_amdahl",
    "check_amp_step",
    "check_average_gradients",
    "check_block_parameters",
    "check_bubble_share",
    "check_bytes_per_rank",
    "check_bytes_sent",
    "check_cached_epoch",
    "check_crop_offset",
    "check_exposed_s",
    "check_gpipe",
    "check_gradient_bytes",
    "check_ladder",
    "check_largest_batch",
    "check_learning_rate",
    "check_loss_scale",
    "check_macs_per_gradient_byte",
    "check_may_update",
    "check_mean_loss",
    "check_memory_bytes",
    "check_message_s",
    "check_one_f_one_b",
    "check_push",
    "check_ring_s",
    "check_ring_step",
    "check_rounded",
    "check_server_bytes",
    "check_shard_bounds",
    "check_shard_of",
    "check_step_s",
    "check_steps_per_epoch",
]
