"""Spec: everything that decides what one row of the report trains. Imports no torch, so it loads in milliseconds.

A field is a *row* field (it changes the meaning of the row, and is part of its name) or a *scale* field (how big, how long,
on which device; a profile sets it). Every field states its own limits, and `Spec(...)` checks them all. So every Spec that
exists can be started, as far as that can be known without the machine (`rows/fit.py` looks at the machine).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from labkit.rows import names
from labkit.rows.catalog import DATASETS
from labkit.rows.fields import SpecError, check_value, field, nearest, read_text, scale
from labkit.rows.kinds import MAX_PROCESSES, STRATEGIES, Kind, kind_of, own_strategies, users_of

PUBLISHED_WIDTH = 64
LAYERS = {"resnet18": 10, "resnet34": 18, "resnet50": 18}  # stem, blocks and head: where a pipeline can be cut


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One row: the fields below, each with its default, what it means, and its limits. Raises SpecError for a wrong value."""

    # fmt: off
    # Row fields that are part of the published names.
    strategy: str = field("single", "who computes what, and what is exchanged", choices=STRATEGIES, also=own_strategies)
    model: str = field("resnet18", "the network", choices=["resnet18", "resnet34", "resnet50"])
    batch_per_rank: int = field(128, "images that one rank (replica, worker) takes in per step", low=1, high=65536)
    world_size: int = field(1, "ranks, replicas or workers that train; a server is one process more", low=1, high=MAX_PROCESSES - 1)
    backend: str = field("auto", "library that carries the messages; auto: nccl on CUDA, gloo on CPU", choices=["auto", "nccl", "gloo"])
    cache: str = field("false", "decoded images kept: no (false), yes (true), augmentation kept too (frozen: a fault)", choices=["false", "true", "frozen"])
    amp: bool = field(False, "mixed precision: forward under autocast")
    sharding: str = field("grad", "gather parameters once per step (grad) or again for backward (full)", choices=["grad", "full"])
    server_device: str = field("cpu", "where the parameter server keeps and updates the weights", choices=["cpu", "cuda"])
    # Row fields that are not. The default is what was published; another value is in the name as +key=value.
    amp_dtype: str = field("auto", "autocast type; auto: bf16 on CPU, fp16 with a loss scaler on CUDA", choices=["auto", "bf16", "fp16"])
    micro_batches: int = field(1, "slices of a batch that flow through the pipeline", low=1, high=4096)
    schedule: str = field("gpipe", "pipeline order when micro_batches > 1", choices=["gpipe", "1f1b"])
    form: str = field("per_parameter", "how gradients are all-reduced after (buckets: during) backward", choices=["per_parameter", "flat", "buckets", "ring"])
    bucket_mb: float = field(25.0, "gradient bucket size in MiB", above=0, high=4096)
    gradient_as_bucket_view: bool = field(False, "gradients live inside DDP's buckets: one copy less")
    static_graph: bool = field(False, "promise DDP that every step uses the same parameters")
    consistency: str = field("async", "when the server applies a push", choices=["async", "sync", "ssp"])
    staleness_bound: int = field(3, "ssp: most server updates between reading weights and applying their gradient", low=0, high=10**6)
    norm: str = field("batch", "normalisation layer; sync: BatchNorm over the images of all ranks; group: over one image, so that every split of a batch is exact", choices=["batch", "sync", "group"])
    bn_statistics: str = field("fresh", "BatchNorm statistics that evaluation uses: taken anew for the weights, or the running ones of rank 0", choices=["fresh", "running"])
    # Scale fields: a profile sets them, and a row's meaning does not depend on them.
    dataset: str = scale("digits", "images to train on", choices=["digits", "fashion_mnist", "cifar10", "cifar100", "synthetic"])
    image_size: int = scale(16, "side of the square images in pixels", low=8, high=512)
    # At least 8: on CPUs without AVX-512, torch 2.14's 1x1 convolutions of stride 2 write past the end of narrower NHWC images.
    width: int = scale(16, f"channels of the first layer; {PUBLISHED_WIDTH} is the published size", low=8, high=1024)
    epochs: int = scale(1, "passes over the training images", low=1, high=100000)
    train_samples: int = scale(0, "training images used; 0: all", low=0)
    test_samples: int = scale(0, "test images used; 0: all", low=0)
    augment: bool = scale(True, "random crop and flip of training images, as the data set allows")
    lr: float = scale(0.1, "peak learning rate", above=0, high=1000)
    lr_schedule: str = scale("cosine", "learning rate after the warm-up", choices=["constant", "cosine", "linear"])
    warmup_fraction: float = scale(0.1, "part of all steps in which the learning rate rises linearly", low=0, high=0.9)
    momentum: float = scale(0.9, "SGD momentum", low=0, high=0.9999)
    nesterov: bool = scale(False, "Nesterov momentum")
    weight_decay: float = scale(5e-4, "L2 penalty", low=0, high=1)
    optimizer_impl: str = scale("fused", "how SGD is carried out (fsdp: foreach where fused is asked, which its sharded tensors lack)", choices=["for_loop", "foreach", "fused"])
    tf32: bool = scale(True, "CUDA: convolutions of 32-bit numbers in TF32, which keeps 10 bits of their fraction (torch's default); False: 23 bits")
    channels_last: bool = scale(True, "store images as NHWC, which convolutions prefer")
    seed: int = scale(0, "draws the order of images, their augmentation and rank 0's weights", low=0, high=2**31)
    device: str = scale("auto", "auto: CUDA if there is any", choices=["auto", "cpu", "cuda"])
    share_device: bool = scale(False, "let gloo ranks share one CUDA device (a check, not a measurement)")
    threads_per_rank: int = scale(0, "CPU threads of one rank; 0: cores / ranks", low=0, high=1024)
    cache_on: str = scale("device", "where cached images lie: host memory, or the device that trains", choices=["host", "device"])
    loader_workers: int = scale(0, "DataLoader processes per rank when cache is false", low=0, high=64)
    warmup_steps: int = scale(2, "first steps left out of the throughput", low=0, high=10**6)
    timeout_s: float = scale(20.0, "longest wait for another rank in seconds", low=1, high=86400)
    deadline_s: float = scale(3600.0, "longest run in seconds", above=0, high=10**7)
    # fmt: on

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            check_value(f, value)
            if str(f.type) == "float":  # 1 and 1.0 are the same value: they must give the same name and the same folder
                object.__setattr__(self, f.name, float(value))
        self._check_together()

    def _check_together(self) -> None:
        """Raise SpecError for fields that do not fit each other."""
        kind = self.kind
        for f in dataclasses.fields(self):
            users = users_of(f.name)
            if users and f.name not in kind.settings and getattr(self, f.name) != f.default:
                raise SpecError(
                    f"{f.name}={getattr(self, f.name)}: only {', '.join(users)} uses it, not {self.strategy}; leave it out"
                )
        if self.world_size > 1 and kind.whole_batch and kind.one_process:
            raise SpecError(f"world_size={self.world_size}: {self.strategy} is one process; use ddp, or world_size=1")
        if self.world_size < kind.least:
            raise SpecError(
                f"world_size={self.world_size}: {self.strategy} needs at least {kind.least} ranks; set world_size={kind.least}"
            )
        if kind.whole_batch and self.world_size > LAYERS[self.model]:
            raise SpecError(f"world_size={self.world_size}: {self.model} can be cut into at most {LAYERS[self.model]} parts")
        if self.batch_per_rank % self.micro_batches:
            raise SpecError(
                f"micro_batches={self.micro_batches}: does not divide the batch of {self.batch_per_rank}; use a divisor of it"
            )
        if self.norm == "sync" and (kind.one_process or kind.whole_batch or kind.server):
            why = "its workers do not step together" if kind.server else "its replicas are threads of one process"
            why = "each layer sees the whole batch already" if kind.whole_batch else why
            raise SpecError(
                f"norm=sync: {self.strategy} cannot add statistics over ranks: {why}; use norm=batch, or ddp, fsdp, collective"
            )
        if self.norm == "group" and self.bn_statistics != "fresh":
            raise SpecError("bn_statistics=running: norm=group has no statistics; leave it out, or use norm=batch")
        if self.norm != "group" and -(-self.image_size // 8) == 1 and self.batch_per_rank == self.micro_batches:
            # Three stages halve the side, rounding up: at 8 the last one has one value per channel and image. torch refuses to
            # normalise one value, from inside a rank.
            cut = f"micro_batches={self.micro_batches}" if self.micro_batches > 1 else f"batch_per_rank={self.batch_per_rank}"
            raise SpecError(
                f"{cut}: one image at a time, of {self.image_size} pixels a side, leaves norm=batch one value per channel in the last "
                "stage, and it needs two; use two images, image_size=9 or more, or norm=group"
            )
        if self.schedule == "1f1b" and self.micro_batches < self.world_size:
            raise SpecError(f"schedule=1f1b: needs micro_batches >= {self.world_size} (the stages), not {self.micro_batches}")
        if self.staleness_bound != 3 and self.consistency != "ssp":
            raise SpecError(f"staleness_bound={self.staleness_bound}: only consistency=ssp has a bound; set consistency=ssp too")
        if self.backend == "nccl" and self.share_device:
            raise SpecError("share_device=True: NCCL refuses two ranks on one device; use backend=gloo")
        if self.backend != "auto" and not kind.backends:
            raise SpecError(f"backend={self.backend}: {self.strategy} is one process and sends no messages; leave backend out")
        if self.backend != "auto" and self.backend not in kind.backends:
            raise SpecError(
                f"backend={self.backend}: {self.strategy} sends its messages with {', '.join(kind.backends)} "
                "(NCCL does not allow two ranks on one GPU); leave backend out"
            )
        if self.nesterov and self.momentum == 0:
            raise SpecError("nesterov=True: needs momentum > 0; set momentum=0.9 or nesterov=False")

    @property
    def kind(self) -> Kind:
        """The facts of this strategy (`rows/kinds.py`)."""
        return kind_of(self.strategy)

    @property
    def processes(self) -> int:
        """How many processes to start: one for single and data_parallel; otherwise one per rank, and one more for a server."""
        if self.kind.one_process:
            return 1
        return self.world_size + 1 if self.kind.server else self.world_size

    def is_server(self, rank: int) -> bool:
        """Is this process the server? The server is the last process."""
        return self.kind.server and rank == self.world_size

    @property
    def shards(self) -> int:
        """How many different parts the images of one step are cut into."""
        return self.world_size if self.kind.splits_batch else 1

    @property
    def train_images(self) -> int:
        """Training images that are used in an epoch."""
        return self.train_samples or DATASETS[self.dataset].train_images

    @property
    def test_images(self) -> int:
        """Test images on which accuracy is measured."""
        return self.test_samples or DATASETS[self.dataset].test_images

    @property
    def steps_per_epoch(self) -> int:
        """Full steps in an epoch; images that do not fill a step are left out."""
        return self.train_images // self.images_per_step

    @property
    def images_per_step(self) -> int:
        """Different images that all ranks together train while each of them makes one step."""
        return self.batch_per_rank if self.kind.whole_batch else self.batch_per_rank * self.world_size

    @property
    def batch_size(self) -> int:
        """The Batch Size column, as published: images that one update of the weights comes from. (An asynchronous server makes an
        update from each push.)"""
        if self.kind.server and self.consistency == "async":
            return self.batch_per_rank
        return self.images_per_step

    @property
    def name(self) -> str:
        """The name of the row: the published form, then `+key=value` for every other row field that is not at its default."""
        return names.name_of(self.to_dict() | {"images_per_step": self.images_per_step}, ROW_DEFAULTS)

    @classmethod
    def parse(cls, name: str, **fields: Any) -> Spec:
        """The Spec of a row's name; `fields` set the scale fields. Raises SpecError for a text that is no row's name (such as
        `../x`), and for another spelling of a name (`bs0128`, a setting at its default): a row has one name, so that it has one
        folder."""
        row, settings = names.read_name(name)
        for key, text in settings.items():
            if key in names.fields_in_stem(row["strategy"]):
                raise SpecError(f"'{name}': '{key}' cannot be set after a +; the name says it before, or the machine chooses it")
            if key not in ROW_DEFAULTS:
                raise SpecError(f"'{name}': '{key}' cannot be set in a row's name{nearest(key, ROW_DEFAULTS)}")
            row[key] = read_text(FIELDS[key], text)
        if (spelled := cls(**row).name) != name:
            raise SpecError(f"{name!r}: a row has one name; write it '{spelled}'")
        return make_spec({**row, **fields})

    def but(self, **fields: Any) -> Spec:
        """A new Spec with some fields changed, all checked again. Raises SpecError."""
        known(fields)
        return dataclasses.replace(self, **fields)

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, as plain values: `Spec(**spec.to_dict()) == spec`."""
        return dataclasses.asdict(self)


FIELDS = {f.name: f for f in dataclasses.fields(Spec)}
ROW_DEFAULTS = {name: f.default for name, f in FIELDS.items() if not f.metadata["scale"]}
SCALE_FIELDS = [name for name, f in FIELDS.items() if f.metadata["scale"]]


def known(fields: dict[str, Any]) -> None:
    """Raise SpecError for a key that is no field of Spec."""
    for key in fields:
        if key not in FIELDS:
            raise SpecError(f"unknown key '{key}'{nearest(key, FIELDS)}")


def make_spec(fields: dict[str, Any]) -> Spec:
    """A Spec from plain values, as from YAML. Raises SpecError with the key, the value and the remedy."""
    known(fields)
    return Spec(**fields)


def read_text_value(key: str, text: str) -> Any:
    """The value of a field from the command line's `--set key=text`. Raises SpecError for an unknown key or a wrong type."""
    known({key: text})
    return read_text(FIELDS[key], text)
