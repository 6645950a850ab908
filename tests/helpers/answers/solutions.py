"""A correct solution of every exercise, in the plainest form: the notebooks fold these away under `solution_<name>`."""

import itertools
import math
import random


# -- group 1 ------------------------------------------------------------------------------------------------------------
def shard_of(order, rank, world_size):
    each = len(order) // world_size
    return order[rank * each : (rank + 1) * each]


def average_gradients(grads_of_ranks):
    return [sum(of_one) / len(grads_of_ranks) for of_one in zip(*grads_of_ranks, strict=True)]


def exposed_s(ready_s, message_s, backward_s):
    free = 0.0  # when the wire is free again
    for ready in ready_s:
        free = max(free, ready) + message_s
    return max(0.0, free - backward_s)


# -- group 2 ------------------------------------------------------------------------------------------------------------
def ring_step(rank, world_size, step):
    send = (rank - step) % world_size
    receive = (rank - 1 - step) % world_size  # what the left neighbour sends
    return send, receive


def bytes_sent(n_bytes, world_size):
    return 2 * (world_size - 1) * n_bytes / world_size


def ring_s(n_bytes, world_size, latency_s, bytes_per_s):
    one_step = latency_s + n_bytes / world_size / bytes_per_s
    return 2 * (world_size - 1) * one_step


# -- group 3 ------------------------------------------------------------------------------------------------------------
def one_f_one_b(stage, stages, micro_batches):
    ahead = min(stages - stage - 1, micro_batches)
    order = [("F", i) for i in range(ahead)]
    for i in range(micro_batches):
        if ahead + i < micro_batches:
            order.append(("F", ahead + i))
        order.append(("B", i))
    return order


def bubble_share(stages, micro_batches):
    return (stages - 1) / (micro_batches + stages - 1)


def bytes_per_rank(strategy, parameters, world_size):
    whole, shard = 4 * parameters, 4 * parameters / world_size
    if strategy == "ddp":
        return whole + whole + whole
    if strategy == "zero1":
        return whole + whole + shard
    if strategy == "zero2":
        return whole + shard + shard
    return shard + shard + shard


# -- group 4 ------------------------------------------------------------------------------------------------------------
def cached_epoch(images, epoch, cache, decode, augment):
    pictures = []
    for index, image in enumerate(images):
        if image not in cache:
            cache[image] = decode(image)
        pictures.append(augment(cache[image], epoch, index))
    return pictures


def crop_offset(seed, epoch, index):
    return random.Random(f"{seed} {epoch} {index}").randint(0, 8)


# -- group 5 ------------------------------------------------------------------------------------------------------------
def rounded(x, fraction_bits):
    m, e = math.frexp(x)
    steps = 2 ** (fraction_bits + 1)  # one more: m is below 1
    return round(m * steps) / steps * 2.0**e


def loss_scale(gradients, largest):
    size = max(abs(g) for g in gradients)
    return 2.0 ** math.floor(math.log2(largest / size))


def amp_step(weights, scaled_grads, scale, lr):
    if not all(math.isfinite(g) for g in scaled_grads):
        return weights, scale / 2
    return [w - lr * g / scale for w, g in zip(weights, scaled_grads, strict=True)], scale


# -- group 6 ------------------------------------------------------------------------------------------------------------
def steps_per_epoch(images, batch_per_rank, world_size, drop_last):
    per_step = batch_per_rank * world_size
    return images // per_step if drop_last else math.ceil(images / per_step)


def mean_loss(means, counts):
    return sum(m * c for m, c in zip(means, counts, strict=True)) / sum(counts)


def sync_statistics(means, variances, counts):
    mean = mean_loss(means, counts)
    apart = [variance + (one - mean) ** 2 for one, variance in zip(means, variances, strict=True)]
    return mean, mean_loss(apart, counts)


def learning_rate(step, base_lr, base_batch, batch, warmup_steps):
    peak = base_lr * batch / base_batch
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak


# -- group 7 ------------------------------------------------------------------------------------------------------------
def gradient_bytes(shapes, bytes_per_number):
    return sum(math.prod(shape) for shape in shapes) * bytes_per_number


def block_parameters(cin, cout, stride):
    first = 3 * 3 * cin * cout + 2 * cout
    second = 3 * 3 * cout * cout + 2 * cout
    shortcut = cin * cout + 2 * cout if stride != 1 or cin != cout else 0
    return first + second + shortcut


def macs_per_gradient_byte(cin, cout, kernel, side, batch):
    weights = kernel * kernel * cin * cout
    return weights * side * side * batch / (4 * weights)


# -- group 8 ------------------------------------------------------------------------------------------------------------
def amdahl(share, factor):
    return 1 / ((1 - share) + share / factor)


def step_s(input_s, compute_s, message_s, ahead):
    train_s = compute_s + message_s
    return max(input_s, train_s) if ahead else input_s + train_s


# -- group 9 ------------------------------------------------------------------------------------------------------------
def accumulated(gradient, images, parts):
    each = math.ceil(len(images) / parts)
    total = 0.0
    for start in range(0, len(images), each):
        part = images[start : start + each]
        total += gradient(part) * len(part)
    return total / len(images)


def largest_batch(memory_bytes, parameters, activation_bytes):
    free = memory_bytes - 3 * 4 * parameters
    return max(0, free // activation_bytes)


# -- group 10 -----------------------------------------------------------------------------------------------------------
def push(weight, version, gradient, read_version, lr):
    return weight - lr * gradient, version + 1, version - read_version


def may_update(version, computing, bound):
    return all(version + 1 - read <= bound for read in computing)


# -- notebook 11: the published table ---------------------------------------------------------------------------------------
def batch_counts(per_device, devices, column):
    if devices == 1 and column == per_device:
        return "both"
    return {per_device: "one device", per_device * devices: "all devices"}.get(column, "neither")


def images_trained(one_rate, one_s, other_rate, other_s):
    return (one_s - other_s) / (1 / one_rate - 1 / other_rate)


def outside_s(images_per_s, total_s, epochs, images):
    return total_s / epochs - images / images_per_s


def rate_needed(images, rate, outside_s, own_outside_s):
    left_s = images / rate + outside_s - own_outside_s
    return images / left_s if left_s > 0 else math.inf


def losses(one, one_small, pair_cached, pair):
    steps = [2 * one, 2 * one_small, pair_cached, pair]
    return [1 - after / before for before, after in itertools.pairwise(steps)]


def memory_line(batch, mib, larger_batch, larger_mib):
    per_image = (larger_mib - mib) / (larger_batch - batch)
    return mib - per_image * batch, per_image


def residual_mib(column, copies, p_mib, images, image_mib):
    return column - (copies * p_mib + image_mib * images)


def axes_that_explain(low, others):
    return sorted(axis for axis in low[0] if not {row[axis] for row in low} & {row[axis] for row in others})


def chance_points(accuracy_pct, test_images):
    share = accuracy_pct / 100
    return 100 * 2 * math.sqrt(2 * share * (1 - share) / test_images)
