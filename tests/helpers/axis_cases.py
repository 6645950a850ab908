"""The rows that tests/strategies/test_axes.py trains: every strategy, with every setting changed in turn."""

import math

from labkit.rows import kinds
from labkit.rows.kinds import STRATEGIES

SCALE = {"dataset": "digits", "image_size": 8, "width": 8, "epochs": 2, "train_samples": 16, "test_samples": 20}
TRAINABLE = 62  # parameter tensors of a ResNet-18: 20 convolutions, 20 norms of two each, a linear layer of two
BLOCKS = 10  # stem, 8 blocks, head


def row(strategy, world_size=2, **settings):
    whole = strategy in ("single", "model_parallel")  # 8 images per step in all
    return SCALE | {"strategy": strategy, "world_size": world_size, "batch_per_rank": 8 if whole else 4} | settings


SERVER = "parameter_server, sync"
KINDS = {
    "single": row("single", 1),
    "data_parallel": row("data_parallel"),
    "ddp": row("ddp"),
    "fsdp": row("fsdp"),
    "collective": row("collective", form="flat"),
    "model_parallel": row("model_parallel"),
    "model_parallel, 4 micro-batches": row("model_parallel", micro_batches=4),
    SERVER: row("parameter_server", consistency="sync"),
}
KINDS |= {name: row(name) for name in STRATEGIES if name not in kinds.KINDS}  # a strategy of one's own
AXES = {
    "as it is": {"_look_closely": True},
    "amp": {"amp": True},
    "longer": {"train_samples": 64},
    "amp fp16": {
        "amp": True,
        "amp_dtype": "fp16",
        "train_samples": 64,
    },  # the first steps overflow until the scale is small enough
    "width": {"width": 12, "epochs": 1},
    "seed": {"seed": 1},
    "lr": {"lr": 0.05},
    "cache true": {"cache": "true"},
    "cache frozen": {"cache": "frozen"},
    "NCHW": {"channels_last": False, "epochs": 1},
}
OF_ONE_KIND = {
    "micro_batches 2": row("model_parallel", micro_batches=2),
    "micro_batches 4, 1f1b": row("model_parallel", micro_batches=4, schedule="1f1b"),
    "ddp, small buckets": row("ddp", bucket_mb=0.01),
    "ddp, bucket view": row("ddp", gradient_as_bucket_view=True),
    "buckets": row("collective", form="buckets"),
    "small buckets": row("collective", form="buckets", bucket_mb=0.01),
    "per_parameter": row("collective", form="per_parameter"),
    "ring": row("collective", form="ring"),
    "sharding full": row("fsdp", sharding="full"),
    "norm group": row("single", 1, norm="group"),
    "running": row("single", 1, bn_statistics="running"),
    "ddp, norm sync": row("ddp", norm="sync"),
    "fsdp, norm sync": row("fsdp", norm="sync"),
    "collective, norm sync": row("collective", norm="sync"),
}
LATE = {"train_samples": 80, "epochs": 1, "_slow_ranks": [1]}  # worker 1 sleeps in its second of ten steps
LONG = {"train_samples": 192, "epochs": 6, "width": 8, "batch_per_rank": 16, "cache": "true", "augment": False, "lr": 0.05}
CONSISTENCIES = {
    "sync": {"consistency": "sync"},
    "ssp 1": {"consistency": "ssp", "staleness_bound": 1},
    "ssp 2": {"consistency": "ssp", "staleness_bound": 2},
    "async": {"consistency": "async"},
}
BOUNDS = {"sync": 0, "ssp 1": 1, "ssp 2": 2, "async": math.inf}


def all_cases():
    cases = {(kind, axis): base | change for kind, base in KINDS.items() for axis, change in AXES.items()}
    cases |= {(kind, "batch"): base | {"batch_per_rank": 2 * base["batch_per_rank"], "epochs": 1} for kind, base in KINDS.items()}
    cases |= {(name, "as it is"): case | {"_look_closely": True} for name, case in OF_ONE_KIND.items()}
    for name, consistency in CONSISTENCIES.items():
        cases[SERVER, f"{name}, late"] = row("parameter_server", **consistency) | LATE
        cases[SERVER, f"{name}, long"] = row("parameter_server", **consistency) | LONG
    return cases


def called(kind, axis="as it is"):
    return kind if axis == "as it is" else f"{kind}, {axis}"
