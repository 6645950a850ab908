"""Which images a rank sees, in which order, how they are augmented, and the three caches.

    generator [seed, epoch, 0]  ->  order      all images, shuffled; no rank draws anything of its own
    generator [seed, epoch, 1]  ->  crop offset and flip of every image, looked up by image index (cache frozen: [seed, 0, 1])

    order    | 7 2 9 4 | 0 5 8 1 | 6 3        10 images, 4 a step: two steps; images 6 and 3 are left out
    part 0   | 7 2     | 0 5     |
    part 1   |     9 4 |     8 1 |            part i of n takes the i-th of n equal runs of a step

    cache false    file -> decode -> crop, flip -> batch     everything in every epoch, image by image
    cache true     file -> decode -> | crop, flip -> batch   left of the bar once, right of it in every epoch
    cache frozen   file -> decode -> crop, flip -> | batch   with the draws of epoch 0: a fault, shown on purpose

The draws do not depend on the cache or on the number of ranks, so strategies can be compared image for image. The images
left out do not fill a step. Every strategy leaves out the same ones, and another epoch, with another order, leaves out
others. Evaluation leaves nothing out.
"""

import shutil
from collections.abc import Iterator
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

SHARED = Path("/dev/shm")
NO_ROOM = ("No space left", "Bus error", "shared memory", "unable to mmap", "unable to write to file")  # for a loader's processes


class Draws:
    """What is drawn at random for an epoch (0, 1, ...) of `images` images.

    order: (images,), the indices in the order of training. offsets: (images, 2), the crop offset (dy, dx) of each image in
    pixels of the padded image. flips: (images,), is the image mirrored?"""

    def __init__(self, spec: Spec, images: int, epoch: int):
        # Two generators, since with cache=frozen the order changes from epoch to epoch, and the augmentation does not.
        info = DATASETS[spec.dataset]
        self.order = np.random.default_rng([spec.seed, epoch, 0]).permutation(images)
        augmentation_epoch = 0 if spec.cache == "frozen" else epoch  # frozen: every epoch has the crops and flips of the first
        rng = np.random.default_rng([spec.seed, augmentation_epoch, 1])
        self.offsets = rng.integers(0, 2 * info.crop_padding + 1, (images, 2))
        self.flips = rng.random(images) < 0.5
        if not spec.augment:
            self.offsets[:] = info.crop_padding
        if not (spec.augment and info.flip):
            self.flips[:] = False


class Data:
    """The images of a Spec for one process. `folder`: what `datasets.prepare` returned. `images` False: the process trains on labels
    alone (a pipeline's later stages), and decodes no training image. Raises DatasetError if the folder is damaged."""

    def __init__(self, spec: Spec, folder: Path, device: torch.device, images: bool = True):
        self.images, self.spec, self.device, self.info = images, spec, device, DATASETS[spec.dataset]
        arrays = open_arrays(folder)
        self.train_labels = torch.from_numpy(np.array(arrays["train_labels"][: spec.train_images])).to(device)
        self.test_labels = torch.from_numpy(np.array(arrays["test_labels"][: spec.test_images])).to(device)
        self.raw = arrays["train_images"][
            : spec.train_images
        ]  # a memory map of a file: without a cache it is read image by image
        self.raw_test = arrays["test_images"][: spec.test_images]
        self.mean = torch.tensor(self.info.mean, device=device).view(1, -1, 1, 1)
        self.std = torch.tensor(self.info.std, device=device).view(1, -1, 1, 1)
        self.steps_per_epoch = spec.steps_per_epoch
        if spec.cache != "false" and images:
            self.home = device if spec.cache_on == "device" else torch.device("cpu")
            self.cached = self.padded(self.decode(self.raw)).to(self.home)
        if spec.cache == "frozen" and images:
            everything, draws = torch.arange(len(self.raw), device=self.home), Draws(spec, len(self.raw), 0)
            self.cached = torch.cat([self.cropped(part, draws) for part in everything.split(4096)])

    def decode(self, raw: np.ndarray) -> Tensor:
        """Stored images (n, h, w, c) uint8 -> images of the trained size (n, size, size, c) uint8."""
        size = self.spec.image_size
        if raw.shape[1] == size:
            return torch.from_numpy(np.array(raw))
        return torch.from_numpy(np.stack([np.asarray(to_pil(image, size)).reshape(size, size, -1) for image in raw]))

    def padded(self, images: Tensor) -> Tensor:
        """(n, size, size, c) -> (n, size + 2 pad, size + 2 pad, c), with zeros around each image."""
        pad = self.info.crop_padding
        return F.pad(images, (0, 0, pad, pad, pad, pad))

    def cropped(self, index: Tensor, draws: Draws) -> Tensor:
        """The augmented images (b, size, size, c) uint8 of these image indices (b,), cut out of the padded cache at once."""
        # One indexing operation crops and flips: image b takes the rows dy, dy + 1, ... of its padded image, and the columns
        # dx, dx + 1, ..., or, if it is flipped, the same columns from right to left.
        size, at = self.spec.image_size, index.cpu().numpy()
        along = torch.arange(size, device=self.home)
        offsets = torch.from_numpy(draws.offsets[at]).to(self.home)
        flips = torch.from_numpy(draws.flips[at]).to(self.home)
        rows = offsets[:, :1] + along
        columns = offsets[:, 1:] + torch.where(flips[:, None], size - 1 - along, along)
        return self.cached[index[:, None, None], rows[:, :, None], columns[:, None, :]]

    def normalised(self, images: Tensor) -> Tensor:
        """(b, size, size, c) uint8 -> (b, c, size, size) float32 in the Spec's memory format. Per channel the training images have
        mean 0 and standard deviation 1."""
        x = images.permute(0, 3, 1, 2).float().div_(255).sub_(self.mean).div_(self.std)
        return x if self.spec.channels_last else x.clone(memory_format=torch.contiguous_format)

    def index(self, draws: Draws, shard: tuple[int, int]) -> np.ndarray:
        """The image indices (steps, images of one part in a step) that part i of n, `shard` = (i, n), trains in this epoch."""
        steps, (part, parts) = self.steps_per_epoch, shard
        used = draws.order[: steps * self.spec.images_per_step]
        return used.reshape(steps, parts, -1)[:, part]

    def train_batches(self, epoch: int, shard: tuple[int, int]) -> Iterator[tuple[Tensor | None, Tensor, np.ndarray]]:
        """Yields, for every step of epoch 0, 1, ..., images (b, c, h, w) float32 (None: see `images` above) and labels (b,) int64 on
        the device, and the image indices (b,). `shard` = (i, n): the part of each step that this rank trains."""
        draws = Draws(self.spec, len(self.raw), epoch)
        index = self.index(draws, shard)
        if not self.images:
            yield from ((None, self.train_labels[torch.from_numpy(row).to(self.device)], row) for row in index)
            return
        if self.spec.cache == "false":
            yield from self.loaded(index, draws)
            return
        for row in index:
            at = torch.from_numpy(row).to(self.home)
            images = self.cached[at] if self.spec.cache == "frozen" else self.cropped(at, draws)
            yield self.normalised(images.to(self.device)), self.train_labels[at.to(self.device)], row

    def loaded(self, index: np.ndarray, draws: Draws) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
        """As `train_batches`, without a cache: image by image through a DataLoader, decoded and transformed again in every
        epoch, as in the tutorials."""
        on_cuda = self.device.type == "cuda"
        loader = DataLoader(
            Pictures(self.spec, self.raw, draws),
            batch_sampler=index.tolist(),
            num_workers=self.spec.loader_workers,
            pin_memory=on_cuda,
            worker_init_fn=die_with_parent if self.spec.loader_workers else None,
        )
        layout = torch.channels_last if self.spec.channels_last else torch.contiguous_format
        for row, x in zip(index, with_cause(loader, self.spec.loader_workers), strict=True):
            at = torch.from_numpy(row).to(self.device)
            yield x.to(self.device, non_blocking=True, memory_format=layout), self.train_labels[at], row

    def test_part(self, part: int, parts: int) -> tuple[Tensor, Tensor]:
        """The test images part, part + parts, part + 2 parts, ..., decoded: (n, size, size, c) uint8, and their labels (n,). All parts
        together are each test image once."""
        mine = slice(part, None, parts)
        return self.decode(self.raw_test[mine]), self.test_labels[mine]


class Pictures(Dataset):
    """A map-style data set for DataLoader: item i is image i, decoded, cropped, flipped if drawn so, and normalised:
    (c, size, size) float32."""

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


def with_cause(loader: DataLoader, workers: int) -> Iterator[Tensor]:
    """The batches of a loader. If its processes find no room in shared memory, raises OSError with the cause and the remedy
    (torch's own message names neither)."""
    try:
        yield from loader
    except (OSError, RuntimeError) as error:
        text = str(error).strip()
        if not workers or not any(word in text for word in NO_ROOM):
            raise
        space = shutil.disk_usage(SHARED)
        has = f"{SHARED} has {space.free / 2**20:.1f} MiB free of {space.total / 2**20:.1f}"
        remedy = "set loader_workers=0, or enlarge it (a container: --shm-size=1g)"
        cause = text.splitlines()[-1].strip()
        raise OSError(f"loader_workers={workers}: {has}, and images are handed over through it ({cause}); {remedy}") from error


def to_pil(image: np.ndarray, size: int) -> Image.Image:
    """(h, w, c) uint8 -> a picture of `size` x `size` pixels, scaled if it has another size."""
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    return picture if picture.size == (size, size) else picture.resize((size, size), Image.Resampling.BILINEAR)


def die_with_parent(_worker: int) -> None:
    """Called in each of DataLoader's processes, with its number: end with the rank that started it."""
    end_with_parent()
