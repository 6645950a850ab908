"""What the benchmark compares the lab with: DDP as in the tutorials. It uses nothing of this lab's engine.

Per-image transforms in a `DataLoader`, `DistributedSampler`, `DistributedDataParallel`, SGD, and one process per rank, started
with spawn. The network, the learning rates and the images are the lab's, so that both sides do the same work. Prints one
JSON line: {"images_per_s", "accuracy_pct"}. `labkit bench tutorial` runs it.
"""

import argparse
import json
import os
import tempfile
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from PIL import Image
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler
from torchvision import transforms

from labkit.data.datasets import open_arrays, prepare
from labkit.engine.models import build_model
from labkit.rows.catalog import DATASETS
from labkit.rows.spec import Spec
from labkit.strategy import learning_rate_factor
from labkit.system.lifeline import end_with_parent

WORLD_SIZE = 2


class FashionMNIST(Dataset):
    """As torchvision's class: an array in memory; item i is image i as a picture, then transformed, and its label."""

    def __init__(self, part, count, transform):
        arrays = open_arrays(prepare("fashion_mnist"))
        self.images = torch.tensor(arrays[f"{part}_images"][:count, :, :, 0])
        self.labels = torch.tensor(arrays[f"{part}_labels"][:count])
        self.transform = transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.images[i].numpy())), int(self.labels[i])


def train(rank, args, store):
    """One rank: train for args.epochs, then test. Rank 0 prints the JSON line. `store`: the file through which the ranks meet."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD_SIZE)
    torch.manual_seed(args.seed)
    info = DATASETS["fashion_mnist"]
    as_tensor = [transforms.ToTensor(), transforms.Normalize(info.mean, info.std)]
    augment = [transforms.RandomCrop(28, padding=info.crop_padding), transforms.RandomHorizontalFlip()]
    train_set = FashionMNIST("train", args.images, transforms.Compose(augment + as_tensor))
    test_set = FashionMNIST("test", args.test_images, transforms.Compose(as_tensor))
    sampler = DistributedSampler(train_set, seed=args.seed, drop_last=True)
    loader = DataLoader(train_set, args.batch, sampler=sampler, num_workers=args.workers, drop_last=True)
    model = DDP(build_model("resnet18", args.width, 1, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, weight_decay=5e-4)
    spec, steps = Spec(lr=args.lr), len(loader) * args.epochs
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(spec, steps, step))
    images, seconds, done = 0, 0.0, 0
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        model.train()
        began = time.perf_counter()
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            scheduler.step()
            done += 1
            if done == args.warmup_steps:
                began = time.perf_counter()
            elif done > args.warmup_steps:
                images += len(y)
        seconds += time.perf_counter() - began
    model.eval()
    with torch.no_grad():
        correct = sum((model.module(x).argmax(1) == y).sum().item() for x, y in DataLoader(test_set, 256))
    rate = torch.tensor(images / seconds)
    dist.all_reduce(rate)
    if rank == 0:
        print(json.dumps({"images_per_s": rate.item(), "accuracy_pct": 100 * correct / len(test_set)}), flush=True)
    dist.barrier()
    dist.destroy_process_group()


def main():
    """Read the options and start WORLD_SIZE ranks."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in [
        ("images", 8192),
        ("test_images", 2000),
        ("batch", 128),
        ("width", 16),
        ("epochs", 2),
        ("workers", 0),
        ("warmup_steps", 2),
        ("seed", 0),
    ]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lr", type=float, default=0.1)
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(train, args=(parser.parse_args(), f"{folder}/store"), nprocs=WORLD_SIZE)


if __name__ == "__main__":
    end_with_parent()  # not in the tutorials: when a benchmark is stopped, nothing may go on running
    main()
