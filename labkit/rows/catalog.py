"""The data sets that a row can name, and the facts that a Spec is checked against."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetInfo:
    """The facts of one data set.

    side           height and width of the stored images, in pixels
    mean, std      per channel, of pixels / 255, over all pixels of all training images
    crop_padding   pixels of zeros around an image of the trained size; the random crop is cut out of that
    flip           may images be mirrored? Only if a mirror image still belongs to its class

    tests/data/test_datasets.py computes mean and std again. Only CIFAR's are copied: they are the constants that are commonly
    published. (The std of 0.20 that many scripts give for cifar10 is another quantity: the mean of the images' own stds.)"""

    name: str
    channels: int
    classes: int
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int
    flip: bool
    train_images: int
    test_images: int


_ALL = (
    DatasetInfo("digits", 1, 10, 8, (0.3054,), (0.3757,), 2, False, 1437, 360),
    DatasetInfo("fashion_mnist", 1, 10, 28, (0.2860,), (0.3530,), 2, True, 60000, 10000),
    DatasetInfo("cifar10", 3, 10, 32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 4, True, 50000, 10000),
    DatasetInfo("cifar100", 3, 100, 32, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), 4, True, 50000, 10000),
    DatasetInfo("synthetic", 3, 100, 32, (0.4977, 0.4976, 0.5005), (0.2048, 0.2046, 0.2061), 4, False, 5000, 1000),
)
DATASETS = {info.name: info for info in _ALL}
