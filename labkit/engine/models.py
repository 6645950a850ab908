"""The models of the report: ResNets with a CIFAR stem, at any width.

The architecture is that of He et al., "Deep Residual Learning for Image Recognition" (2015), with the change
that its section 4.2 makes for 32x32 images: a 3x3 stem of stride 1 and no max-pool. Every model is one flat
`nn.Sequential` of stem, blocks and head. So a pipeline can cut it and FSDP can shard it block by block, and neither
needs to know what is inside a block.
"""

import math

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

EXPANSION = {"basic": 1, "bottleneck": 4}
MODELS = {"resnet18": ("basic", (2, 2, 2, 2)), "resnet34": ("basic", (3, 4, 6, 3)), "resnet50": ("bottleneck", (3, 4, 6, 3))}


def conv(cin: int, cout: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution of `size` x `size` pixels without bias. At stride 1 it keeps height and width."""
    return nn.Conv2d(cin, cout, size, stride, padding=size // 2, bias=False)


class SyncBatchNorm(nn.BatchNorm2d):
    """BatchNorm over the images of all ranks: each layer adds its sums over the ranks before it normalises, and the gradients of
    these sums in backward. (torch's own SyncBatchNorm needs a GPU.) Every rank must have equally many images."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> the same shape, normalised per channel."""
        if not self.training:
            return super().forward(x)
        sums = torch.cat(
            [x.float().sum((0, 2, 3)), x.float().square().sum((0, 2, 3)), x.new_tensor([x.numel() / x.shape[1]]).float()]
        )
        totals = all_reduce(sums)
        n = totals[-1].detach()
        mean, square = (totals[:-1] / n).chunk(2)
        variance = square - mean.square()
        with torch.no_grad():
            for running, now in ((self.running_mean, mean), (self.running_var, variance * n / (n - 1))):
                assert running is not None and self.momentum is not None
                running.lerp_(now, self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return (x * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def norm_layer(norm: str, channels: int) -> nn.Module:
    """`batch`: BatchNorm, which normalises over all images that one rank has at once, as published. `sync`: over those of all ranks.
    `group`: GroupNorm, which normalises over one image, so that the result does not depend on how a batch is split."""
    if norm == "group":
        return nn.GroupNorm(math.gcd(8, channels), channels)
    return SyncBatchNorm(channels) if norm == "sync" else nn.BatchNorm2d(channels)


class Block(nn.Module):
    """`relu(residual(x) + shortcut(x))`. Kind `basic`: convolutions 3x3, 3x3. `bottleneck`: 1x1, 3x3, 1x1, four times as many
    channels out."""

    def __init__(self, kind: str, cin: int, planes: int, stride: int, norm: str):
        super().__init__()
        cout = planes * EXPANSION[kind]
        if kind == "basic":
            convs = [conv(cin, planes, 3, stride), conv(planes, cout, 3)]
        else:
            convs = [conv(cin, planes, 1), conv(planes, planes, 3, stride), conv(planes, cout, 1)]
        layers: list[nn.Module] = []
        for c in convs:
            layers += [c, norm_layer(norm, c.out_channels), nn.ReLU(inplace=True)]
        self.residual = nn.Sequential(*layers[:-1])  # the last ReLU comes after the addition
        same = stride == 1 and cin == cout
        self.shortcut = nn.Identity() if same else nn.Sequential(conv(cin, cout, 1, stride), norm_layer(norm, cout))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(b, cin, h, w) -> (b, cout, h / stride, w / stride)."""
        return self.relu(self.residual(x) + self.shortcut(x))


def build_model(name: str, width: int, channels: int, classes: int, norm: str = "batch") -> nn.Sequential:
    """A ResNet for images of `channels` x H x W (H, W >= 8). `width`: channels of the stem. 64 is the published size, and the
    cost grows with the square of the width.

    Returns an `nn.Sequential` (stem, block, block, ..., head) that maps (b, channels, H, W) to (b, classes). Raises
    KeyError for a name that is not in MODELS."""
    #   stem        group 1      group 2        group 3        group 4        head
    #   width, HxW  width, HxW   2 width, H/2   4 width, H/4   8 width, H/8   mean over pixels, linear -> classes
    #
    # (channels inside a block, and the size of the image; bottleneck blocks give 4 times as many channels out)
    kind, groups = MODELS[name]
    layers: list[nn.Module] = [nn.Sequential(conv(channels, width, 3), norm_layer(norm, width), nn.ReLU(inplace=True))]
    cin = width
    for group, blocks in enumerate(groups):
        planes = width * 2**group
        for i in range(blocks):
            layers.append(Block(kind, cin, planes, stride=2 if group > 0 and i == 0 else 1, norm=norm))
            cin = planes * EXPANSION[kind]
    layers.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, classes)))
    model = nn.Sequential(*layers)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
