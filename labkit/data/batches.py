"""Which images a rank sees, in which order, how they are augmented, and the three caches.

The order of an epoch's images, and each image's crop and flip, are drawn from (seed, epoch) for all images at once
and looked up by image index. So they are the same for every cache and every number of ranks, and strategies can be
compared image for image. Step k of an epoch takes the next `images_per_step` images of the order; part i of n takes
the i-th of n equal runs of them. What is left at the end of an epoch and would not fill a step is left out of that
epoch, for every strategy alike (another epoch draws another order); evaluation leaves nothing out.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as pil

from labkit.data.datasets import open_arrays
from labkit.rows.catalog import DATASETS
from labkit.rows.spec import Spec
from labkit.system.lifeline import end_with_parent

NO_ROOM = ("No space left", "Bus error", "shared memory", "unable to mmap", "unable to write to file")  # for a loader's processes


class Draws:
    """An epoch's order of images, and for every image by its index a crop offset (dy, dx) and whether it is flipped."""

    def __init__(self, spec: Spec, images: int, epoch: int):
        info = DATASETS[spec.dataset]
        self.order = np.random.default_rng([spec.seed, epoch, 0]).permutation(images)
        kept = 0 if spec.cache == "frozen" else epoch  # frozen: for ever the crops and flips of the first epoch
        rng = np.random.default_rng([spec.seed, kept, 1])
        self.offsets = rng.integers(0, 2 * info.crop_padding + 1, (images, 2))
        self.flips = rng.random(images) < 0.5
        if not spec.augment:
            self.offsets[:] = info.crop_padding
        if not (spec.augment and info.flip):
            self.flips[:] = False


class Data:
    """The images of a Spec for one process. `folder` is what `datasets.prepare` returned."""

    def __init__(self, spec: Spec, folder: Path, device: torch.device):
        self.spec, self.device, self.info = spec, device, DATASETS[spec.dataset]
        arrays = open_arrays(folder)
        n, m = count(spec, self.info)
        self.train_labels = torch.from_numpy(np.array(arrays["train_labels"][:n])).to(device)
        self.test_labels = torch.from_numpy(np.array(arrays["test_labels"][:m])).to(device)
        self.raw = arrays["train_images"][:n]  # on disk, mapped: read image by image where nothing is cached
        self.raw_test = arrays["test_images"][:m]
        self.mean = torch.tensor(self.info.mean, device=device).view(1, -1, 1, 1)
        self.std = torch.tensor(self.info.std, device=device).view(1, -1, 1, 1)
        self.steps_per_epoch = n // spec.images_per_step
        if spec.cache != "false":
            self.home = device if spec.cache_on == "device" else torch.device("cpu")
            self.cached = self.padded(self.decode(self.raw)).to(self.home)
        if spec.cache == "frozen":
            everything, draws = torch.arange(n, device=self.home), Draws(spec, n, 0)
            self.cached = torch.cat([self.cropped(part, draws) for part in everything.split(4096)])

    def decode(self, raw: np.ndarray) -> Tensor:
        """(n, h, w, c) uint8 as stored -> (n, size, size, c) uint8 as trained."""
        size = self.spec.image_size
        if raw.shape[1] == size:
            return torch.from_numpy(np.array(raw))
        return torch.from_numpy(np.stack([np.asarray(to_pil(image, size)).reshape(size, size, -1) for image in raw]))

    def padded(self, images: Tensor) -> Tensor:
        pad = self.info.crop_padding
        return F.pad(images, (0, 0, pad, pad, pad, pad))

    def cropped(self, index: Tensor, draws: Draws) -> Tensor:
        """The augmented uint8 images (b, size, size, c) of an index (b,), cut out of the padded cache in one gather."""
        size, at = self.spec.image_size, index.cpu().numpy()
        along = torch.arange(size, device=self.home)
        offsets = torch.from_numpy(draws.offsets[at]).to(self.home)
        flips = torch.from_numpy(draws.flips[at]).to(self.home)
        rows = offsets[:, :1] + along
        columns = offsets[:, 1:] + torch.where(flips[:, None], size - 1 - along, along)
        return self.cached[index[:, None, None], rows[:, :, None], columns[:, None, :]]

    def normalised(self, images: Tensor) -> Tensor:
        """(b, size, size, c) uint8 -> (b, c, size, size) float32, mean 0 and deviation 1 over the training images."""
        x = images.permute(0, 3, 1, 2).float().div_(255).sub_(self.mean).div_(self.std)
        return x if self.spec.channels_last else x.clone(memory_format=torch.contiguous_format)

    def index(self, draws: Draws, shard: tuple[int, int]) -> np.ndarray:
        """(steps, images per step and part): which images part i of n trains in this epoch."""
        steps, (part, parts) = self.steps_per_epoch, shard
        used = draws.order[: steps * self.spec.images_per_step]
        return used.reshape(steps, parts, -1)[:, part]

    def train_batches(self, epoch: int, shard: tuple[int, int]) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
        """Yields images (b, c, h, w), labels (b,) and the index (b,) for every step of an epoch."""
        draws = Draws(self.spec, len(self.raw), epoch)
        index = self.index(draws, shard)
        if self.spec.cache == "false":
            yield from self.loaded(index, draws)
            return
        for row in index:
            at = torch.from_numpy(row).to(self.home)
            images = self.cached[at] if self.spec.cache == "frozen" else self.cropped(at, draws)
            yield self.normalised(images.to(self.device)), self.train_labels[at.to(self.device)], row

    def loaded(self, index: np.ndarray, draws: Draws) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
        """Image by image through a DataLoader, decoded and transformed again in every epoch, as the tutorials do."""
        on_cuda = self.device.type == "cuda"
        loader = DataLoader(
            Pictures(self.spec, self.raw, draws),
            batch_sampler=index.tolist(),
            num_workers=self.spec.loader_workers,
            pin_memory=on_cuda,
            worker_init_fn=partial(die_with_parent) if self.spec.loader_workers else None,
        )
        layout = torch.channels_last if self.spec.channels_last else torch.contiguous_format
        for row, x in zip(index, told(loader, self.spec.loader_workers), strict=True):
            at = torch.from_numpy(row).to(self.device)
            yield x.to(self.device, non_blocking=True, memory_format=layout), self.train_labels[at], row

    def test_batches(self, part: int, parts: int, batch: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
        """Every parts-th test image from `part` on: together the parts see each test image exactly once."""
        mine = range(part, len(self.raw_test), parts)
        for start in range(0, len(mine), batch):
            at = np.array(mine[start : start + batch])
            yield self.normalised(self.decode(self.raw_test[at]).to(self.device)), self.test_labels[torch.from_numpy(at)]


class Pictures(Dataset):
    """A map-style data set: image i, decoded, cropped, perhaps flipped, as a normalised (c, size, size) tensor."""

    def __init__(self, spec: Spec, raw: np.ndarray, draws: Draws):
        self.spec, self.raw, self.draws, self.info = spec, raw, draws, DATASETS[spec.dataset]

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, i: int) -> Tensor:
        size = self.spec.image_size
        picture = pil.pad(to_pil(self.raw[i], size), [self.info.crop_padding])
        dy, dx = self.draws.offsets[i].tolist()
        picture = pil.crop(picture, dy, dx, size, size)
        if self.draws.flips[i]:
            picture = pil.hflip(picture)
        return pil.normalize(pil.to_tensor(picture), self.info.mean, self.info.std, inplace=True)


def told(loader: DataLoader, workers: int, shared: Path = Path("/dev/shm")) -> Iterator[Tensor]:
    """What a loader gives. Raises OSError with the cause and the remedy where its processes find no room in shared memory, of
    which torch and multiprocessing say no more than that there is none, or that a process was killed."""
    try:
        yield from loader
    except (OSError, RuntimeError) as error:
        text = str(error).strip()
        if not workers or not any(word in text for word in NO_ROOM):
            raise
        space = shutil.disk_usage(shared)
        has = f"{shared} has {space.free / 2**20:.1f} MiB free of {space.total / 2**20:.1f}"
        remedy = "set loader_workers=0, or enlarge it (a container: --shm-size=1g)"
        cause = text.splitlines()[-1].strip()
        raise OSError(f"loader_workers={workers}: {has}, and images are handed over through it ({cause}); {remedy}") from error


def to_pil(image: np.ndarray, size: int) -> Image.Image:
    """(h, w, c) uint8 -> a picture of size x size pixels."""
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    return picture if picture.size == (size, size) else picture.resize((size, size), Image.Resampling.BILINEAR)


def count(spec: Spec, info) -> tuple[int, int]:
    """How many training and test images a Spec uses."""
    return spec.train_samples or info.train_images, spec.test_samples or info.test_images


def die_with_parent(_worker: int) -> None:
    end_with_parent()
