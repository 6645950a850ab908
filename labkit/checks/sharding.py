"""Exercises on what a rank holds when parameters, gradients and optimizer state are cut over the ranks."""

from __future__ import annotations

from labkit.checks.judge import NotYet, Student, Verdict, exercise, shown, whole


@exercise(
    3,
    signature="shard_bounds(length: int, rank: int, world_size: int) -> tuple[int, int, int]",
    returns="(start, stop, padding): elements [start, stop) are this rank's, and `padding` zeros fill its message up",
)
def check_shard_bounds(student: Student) -> Verdict:
    """Cut a flat parameter over the ranks as FSDP does. An all-gather takes messages of one size from all ranks, so where the
    length does not divide, some shards are padded; no message is longer than it must be.

    Rajbhandari et al., "ZeRO" (2020); Zhao et al., "PyTorch FSDP" (2023).
    """
    lines = []
    for length, n in ((8, 4), (10, 4), (7, 2), (5, 4), (2, 3)):
        shards = []
        for rank in range(n):
            shard = student(length, rank, n)
            if not isinstance(shard, list) or len(shard) != 3 or not all(map(whole, shard)):
                raise NotYet(
                    f"{student.text(length, rank, n)} returned {shown(shard)}, expected (start, stop, padding), whole numbers."
                )
            shards.append(shard)
        table = "\n".join(f"rank {rank}: [{start}, {stop}) + {pad}" for rank, (start, stop, pad) in enumerate(shards))
        what = f"{length} elements over {n} ranks:"
        check_cover(shards, length, what, table)
        sizes = [stop - start + pad for start, stop, pad in shards]
        if any(pad < 0 for _, _, pad in shards):
            raise NotYet(f"{what} a padding is less than 0.", "Padding fills a short shard up; it takes nothing away.", table)
        if len(set(sizes)) > 1:
            raise NotYet(
                f"{what} the messages have {shown(sizes)} elements. An all-gather needs the same number from every rank.",
                "Every message has ceil(length / world_size) elements; padding is what a shard lacks to that.",
                table,
            )
        least = -(-length // n)
        if sizes[0] > least:
            raise NotYet(f"{what} messages of {sizes[0]} elements, where {least} would do.", "ceil(length / world_size)", table)
        lines.append(f"{length} over {n}: " + ", ".join(f"[{start}, {stop}) + {pad}" for start, stop, pad in shards))
    return student.passed("Every element has one owner, and all messages have the same size.", "\n".join(lines))


def check_cover(shards: list[list[int]], length: int, what: str, table: str) -> None:
    """Every element belongs to one rank, in the order of the ranks."""
    reached = 0
    for rank, (start, stop, _) in enumerate(shards):
        if start < reached:
            raise NotYet(f"{what} rank {rank} begins at {start}, but element {start} belongs to another rank already.", "", table)
        if start > reached:
            raise NotYet(f"{what} nobody holds element {reached}: rank {rank} begins at {start}.", "", table)
        if not start <= stop <= length:
            raise NotYet(
                f"{what} rank {rank} holds [{start}, {stop}), which is no part of [0, {length}).",
                "min(…, length) keeps the last ranks inside; a rank may hold nothing: start = stop = length.",
                table,
            )
        reached = stop
    if reached < length:
        raise NotYet(
            f"{what} nobody holds elements {reached} to {length - 1}: a part of the model would never be trained.",
            "length // world_size rounds down; round up.",
            table,
        )


@exercise(
    3,
    signature="bytes_per_rank(strategy: str, parameters: int, world_size: int) -> float",
    returns="the bytes that one rank keeps: parameters, gradients and momentum, 4 bytes for each number",
)
def check_bytes_per_rank(student: Student) -> Verdict:
    """What does a rank keep for P parameters, trained by SGD with momentum in fp32? `strategy` is "ddp" (everything, on every rank),
    "zero1" (the optimizer's state cut over the ranks), "zero2" (the gradients, too) or "fsdp" (the parameters, too: ZeRO-3).

    Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models" (2020), without its fp16 copies.
    """
    cut = {"ddp": 0, "zero1": 1, "zero2": 2, "fsdp": 3}
    names = ("momentum", "gradients", "parameters")
    for parameters, n in ((1000, 8), (11_173_962, 2)):
        for strategy, parts in cut.items():
            shared = (
                f"Cut over {n} ranks: {', '.join(names[:parts]) or 'nothing'}. Whole: {', '.join(names[parts:]) or 'nothing'}."
            )
            others = [
                (4 * parameters * (3 - other + other / n), f"That is what {name} keeps. {shared}")
                for name, other in cut.items()
                if other != parts
            ]
            student.gives(
                strategy,
                parameters,
                n,
                expected=4 * parameters * (3 - parts + parts / n),
                why=shared,
                mistakes=[
                    *others,
                    (parameters * (3 - parts + parts / n), "That counts numbers. In fp32 each takes 4 bytes."),
                    (4 * parameters * (2 - parts + parts / n), f"One of the three is left out. {shared}"),
                ],
            )
    return student.passed("From 12 bytes per parameter on every rank to 12 / N: what is cut must be gathered when it is needed.")
