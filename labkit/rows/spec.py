"""Spec: everything that decides what one row of the report trains. Imports no torch, so that it loads at once.

A field is a *row* field (it changes what the row means, and shows in its name) or a *scale* field (how big,
how long, on which device; a profile sets it). Every field states its own limits, and `Spec(...)` checks them
all: a Spec that exists is one that can be started, as far as can be known without looking at the machine.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STRATEGIES = sorted(p.stem for p in (Path(__file__).parents[1] / "strategies").glob("[a-z]*.py"))
PUBLISHED_WIDTH = 64
MAX_PROCESSES = 64
LAYERS = {"resnet18": 10, "resnet34": 18, "resnet50": 18}  # stem, blocks and head: where a pipeline can be cut


class SpecError(ValueError):
    """A value that no run can be started with. The message names the key, the value and the remedy."""


def _field(default: Any, about: str, *, choices=None, low=None, high=None, above=None, scale=False, of=None):
    """One field and its limits: one of `choices`, low <= value <= high, value > above; `of` = the strategies that use it."""
    limits = {"about": about, "choices": choices, "low": low, "high": high, "above": above, "scale": scale, "of": of}
    return dataclasses.field(default=default, metadata=limits)


def _scale(default: Any, about: str, **limits):
    return _field(default, about, scale=True, **limits)


@dataclass(frozen=True, kw_only=True)
class Spec:
    # fmt: off
    # What the row is: part of its published name.
    strategy: str = _field("single", "who computes what, and what is exchanged", choices=STRATEGIES)
    model: str = _field("resnet18", "the network", choices=["resnet18", "resnet34", "resnet50"])
    batch_per_rank: int = _field(128, "images that one rank (replica, worker) takes in per step", low=1, high=65536)
    world_size: int = _field(1, "ranks, replicas or workers that train; a server is one process more", low=1, high=MAX_PROCESSES - 1)
    backend: str = _field("auto", "library that carries the messages; auto: nccl on CUDA, gloo on CPU", choices=["auto", "nccl", "gloo"])
    cache: str = _field("false", "decoded images kept: no (false), yes (true), augmentation kept too (frozen: a fault)", choices=["false", "true", "frozen"])
    amp: bool = _field(False, "mixed precision: forward under autocast")
    sharding: str = _field("grad", "gather parameters once per step (grad) or again for backward (full)", choices=["grad", "full"], of=("fsdp",))
    server_device: str = _field("cpu", "where the parameter server keeps and updates the weights", choices=["cpu", "cuda"], of=("parameter_server",))
    # Settings of a row: in its name as +key=value where they are not the default, which is what was published.
    amp_dtype: str = _field("auto", "autocast type; auto: bf16 on CPU, fp16 with a loss scaler on CUDA", choices=["auto", "bf16", "fp16"])
    micro_batches: int = _field(1, "slices of a batch that flow through the pipeline", low=1, high=4096, of=("model_parallel",))
    schedule: str = _field("gpipe", "pipeline order when micro_batches > 1", choices=["gpipe", "1f1b"], of=("model_parallel",))
    form: str = _field("per_parameter", "how gradients are all-reduced after (buckets: during) backward", choices=["per_parameter", "flat", "buckets", "ring"], of=("collective",))
    bucket_mb: float = _field(25.0, "gradient bucket size in MiB", above=0, high=4096, of=("ddp", "collective"))
    gradient_as_bucket_view: bool = _field(False, "gradients live inside DDP's buckets: one copy less", of=("ddp",))
    static_graph: bool = _field(False, "promise DDP that every step uses the same parameters", of=("ddp",))
    consistency: str = _field("async", "when the server applies a push", choices=["async", "sync", "ssp"], of=("parameter_server",))
    staleness_bound: int = _field(3, "ssp: most server updates between reading weights and applying their gradient", low=0, high=10**6, of=("parameter_server",))
    norm: str = _field("batch", "normalisation layer; group makes every split of a batch exact", choices=["batch", "group"])
    # Scale: set by a profile, never part of a row's meaning.
    dataset: str = _scale("digits", "images to train on", choices=["digits", "fashion_mnist", "cifar10", "cifar100", "synthetic"])
    image_size: int = _scale(16, "side of the square images in pixels", low=8, high=512)
    # At least 8: on CPUs without AVX-512, torch 2.14's 1x1 convolutions of stride 2 write past the end of narrower NHWC images.
    width: int = _scale(16, f"channels of the first layer; {PUBLISHED_WIDTH} is the published size", low=8, high=1024)
    epochs: int = _scale(1, "passes over the training images", low=1, high=100000)
    train_samples: int = _scale(0, "training images used; 0: all", low=0)
    test_samples: int = _scale(0, "test images used; 0: all", low=0)
    augment: bool = _scale(True, "random crop and flip of training images, as the data set allows")
    lr: float = _scale(0.1, "peak learning rate", above=0, high=1000)
    lr_schedule: str = _scale("cosine", "learning rate after the warm-up", choices=["constant", "cosine", "linear"])
    warmup_fraction: float = _scale(0.1, "part of all steps in which the learning rate rises linearly", low=0, high=0.9)
    momentum: float = _scale(0.9, "SGD momentum", low=0, high=0.9999)
    nesterov: bool = _scale(False, "Nesterov momentum")
    weight_decay: float = _scale(5e-4, "L2 penalty", low=0, high=1)
    optimizer_impl: str = _scale("fused", "how SGD is carried out (fsdp: foreach where fused is asked, which its sharded tensors lack)", choices=["for_loop", "foreach", "fused"])
    channels_last: bool = _scale(True, "store images as NHWC, which convolutions prefer")
    seed: int = _scale(0, "draws the order of images, their augmentation and rank 0's weights", low=0, high=2**31)
    device: str = _scale("auto", "auto: CUDA if there is any", choices=["auto", "cpu", "cuda"])
    share_device: bool = _scale(False, "let gloo ranks share one CUDA device (a check, not a measurement)")
    threads_per_rank: int = _scale(0, "CPU threads of one rank; 0: cores / ranks", low=0, high=1024)
    cache_on: str = _scale("device", "where cached images lie: host memory, or the device that trains", choices=["host", "device"])
    loader_workers: int = _scale(0, "DataLoader processes per rank when cache is false", low=0, high=64)
    warmup_steps: int = _scale(2, "first steps left out of the throughput", low=0, high=10**6)
    timeout_s: float = _scale(20.0, "longest wait for another rank in seconds", low=1, high=86400)
    deadline_s: float = _scale(3600.0, "longest run in seconds", above=0, high=10**7)
    # fmt: on

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            check_value(f, value)
            if str(f.type) == "float":  # 1 and 1.0 are one value: they must give one name and one folder
                object.__setattr__(self, f.name, float(value))
        self._check_together()

    def _check_together(self) -> None:
        for f in dataclasses.fields(self):
            users = f.metadata["of"]
            if users and self.strategy not in users and getattr(self, f.name) != f.default:
                raise SpecError(
                    f"{f.name}={getattr(self, f.name)}: only {', '.join(users)} uses it, not {self.strategy}; leave it out"
                )
        if self.strategy == "single" and self.world_size != 1:
            raise SpecError(f"world_size={self.world_size}: single is one process; use ddp, or world_size=1")
        if self.strategy == "model_parallel" and self.world_size < 2:
            raise SpecError("world_size=1: model_parallel cuts the layers over at least 2 ranks; set world_size=2")
        if self.strategy == "model_parallel" and self.world_size > LAYERS[self.model]:
            raise SpecError(f"world_size={self.world_size}: {self.model} can be cut into at most {LAYERS[self.model]} parts")
        if self.batch_per_rank % self.micro_batches:
            raise SpecError(
                f"micro_batches={self.micro_batches}: does not divide the batch of {self.batch_per_rank}; use a divisor of it"
            )
        if self.schedule == "1f1b" and self.micro_batches < self.world_size:
            raise SpecError(f"schedule=1f1b: needs micro_batches >= {self.world_size} (the stages), not {self.micro_batches}")
        if self.staleness_bound != 3 and self.consistency != "ssp":
            raise SpecError(f"staleness_bound={self.staleness_bound}: only consistency=ssp has a bound; set consistency=ssp too")
        if self.backend == "nccl" and self.share_device:
            raise SpecError("share_device=True: NCCL refuses two ranks on one device; use backend=gloo")
        if self.backend != "auto" and self.strategy in ("single", "data_parallel"):
            raise SpecError(f"backend={self.backend}: {self.strategy} is one process and sends no messages; leave backend out")
        if self.strategy == "parameter_server" and self.backend == "nccl":
            raise SpecError(
                "backend=nccl: the parameter server's messages go through gloo (NCCL has no two ranks on one GPU); leave backend out"
            )
        if self.nesterov and self.momentum == 0:
            raise SpecError("nesterov=True: needs momentum > 0; set momentum=0.9 or nesterov=False")

    @property
    def processes(self) -> int:
        """Processes to start: one for single and data_parallel, one per rank else, and one more for a server."""
        if self.strategy in ("single", "data_parallel"):
            return 1
        return self.world_size + (self.strategy == "parameter_server")

    @property
    def shards(self) -> int:
        """Into how many different parts the images of one step are divided."""
        return 1 if self.strategy in ("single", "data_parallel", "model_parallel") else self.world_size

    @property
    def images_per_step(self) -> int:
        """Images that all ranks together take in while each makes one step."""
        if self.strategy in ("single", "model_parallel"):
            return self.batch_per_rank
        return self.batch_per_rank * self.world_size

    @property
    def batch_size(self) -> int:
        """The Batch Size column: images behind one update of the weights, as published (a server's push is an update)."""
        if self.strategy == "parameter_server" and self.consistency == "async":
            return self.batch_per_rank
        return self.images_per_step

    @property
    def name(self) -> str:
        from labkit.rows.names import name_of

        return name_of(self)

    @classmethod
    def parse(cls, name: str, **fields: Any) -> Spec:
        """The Spec of a row name; `fields` set the rest. Raises SpecError for a name that is none."""
        from labkit.rows.names import fields_of

        return make_spec({**fields_of(name), **fields})

    def but(self, **fields: Any) -> Spec:
        """The same Spec with some fields changed, checked again."""
        known(fields)
        return dataclasses.replace(self, **fields)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


FIELDS = {f.name: f for f in dataclasses.fields(Spec)}
ROW_FIELDS = [name for name, f in FIELDS.items() if not f.metadata["scale"]]
SCALE_FIELDS = [name for name, f in FIELDS.items() if f.metadata["scale"]]


def nearest(word: str, known_words) -> str:
    """`; did you mean X?` or the list of what is known, to end an error message with."""
    close = difflib.get_close_matches(str(word), list(known_words), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(known_words)}"


def known(fields: dict[str, Any]) -> None:
    for key in fields:
        if key not in FIELDS:
            raise SpecError(f"unknown key '{key}'{nearest(key, FIELDS)}")


def make_spec(fields: dict[str, Any]) -> Spec:
    """A Spec from plain values, such as YAML holds. Raises SpecError naming the key, the value and the remedy."""
    known(fields)
    return Spec(**fields)


def check_value(f: dataclasses.Field, value: Any) -> None:
    """Raise SpecError unless `value` has the field's type and keeps its limits."""
    wanted, limits, at = f.type, f.metadata, f"{f.name}={value!r}"
    fits = {
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, (int, float)) and not isinstance(value, bool),
        "str": isinstance(value, str),
    }[str(wanted)]
    if not fits:
        hint = (
            "; write it without quotes, and with a point: YAML takes 1e-4 for text, 1.0e-4 for a number"
            if isinstance(value, str)
            else ""
        )
        if wanted == "str" and isinstance(value, bool):
            hint = f"; write it in quotes: '{str(value).lower()}'"
        words = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a word"}
        raise SpecError(f"{at}: must be {words[str(wanted)]}, not {type(value).__name__}{hint}")
    if limits["choices"] and value not in limits["choices"]:
        raise SpecError(f"{at}: there is no such choice{nearest(value, limits['choices'])}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high, above = limits["low"], limits["high"], limits["above"]
        if isinstance(value, float) and not math.isfinite(value):
            raise SpecError(f"{at}: must be a finite number ({f.metadata['about']}; the default is {f.default})")
        if (low is not None and value < low) or (above is not None and value <= above) or (high is not None and value > high):
            floor = f"at least {low}" if low is not None else f"more than {above}"
            roof = f" and at most {high}" if high is not None else ""
            raise SpecError(f"{at}: must be {floor}{roof} ({f.metadata['about']}; the default is {f.default})")


def read_text_value(key: str, text: str) -> Any:
    """A field's value from the command line's `--set key=text`."""
    known({key: text})
    wanted = str(FIELDS[key].type)
    try:
        if wanted == "bool":
            return {"true": True, "false": False}[text.lower()]
        return {"int": int, "float": float, "str": str}[wanted](text.lower() if key == "cache" else text)
    except (KeyError, ValueError):
        words = {"bool": "true or false", "int": "a whole number", "float": "a number"}
        raise SpecError(f"{key}={text}: must be {words[wanted]} ({FIELDS[key].metadata['about']})") from None
