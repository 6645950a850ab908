"""Drawings about numbers: formats, a step in mixed precision, and factors that multiply."""

import math
from dataclasses import dataclass

from matplotlib.figure import Figure

from labkit.drawings.sheet import GREY, LINE, MESSAGE, Sheet, drawn
from labkit.plots.style import WORK
from labkit.rows import params


@dataclass(frozen=True)
class Format:
    """A floating-point format: one sign bit, and `exponent` and `fraction` bits."""

    name: str
    exponent: int
    fraction: int

    @property
    def bias(self) -> int:
        """What is added to an exponent before it is stored."""
        return 2 ** (self.exponent - 1) - 1

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return (2 - 2.0**-self.fraction) * 2.0**self.bias

    @property
    def smallest(self) -> float:
        """The smallest normal number, which has all its digits. Below are the subnormal numbers, down to `tiniest`."""
        return 2.0 ** (1 - self.bias)

    @property
    def tiniest(self) -> float:
        """The smallest number above 0."""
        return 2.0 ** (1 - self.bias - self.fraction)

    @property
    def step_at_1(self) -> float:
        """The distance from 1 to the next larger number."""
        return 2.0**-self.fraction


FORMATS = (Format("fp32", 8, 23), Format("tf32", 8, 10), Format("bf16", 8, 7), Format("fp16", 5, 10))
SIGN, EXPONENT, FRACTION = "#555555", "#f0a34a", "#a6cde8"


@drawn
def number_formats() -> Figure:
    """The bits of fp32, tf32, bf16 and fp16: the number of exponent bits sets the range, the number of fraction bits the precision."""
    s = Sheet(13, 7.2, "Bits of a number: exponent = range, fraction = precision", "Computed from the number of bits.")
    bit, left, high = 0.215, 0.95, 0.42
    for x, words in ((8.2, "largest"), (9.6, "smallest normal"), (11.5, "step above 1")):
        s.text(x, 6.2, words, 11, ha="left", weight="bold")
    for line, f in enumerate(FORMATS):
        y = 5.5 - line * 0.62
        s.text(left - 0.15, y + high / 2, f.name, 12, ha="right", weight="bold")
        for i in range(1 + f.exponent + f.fraction):
            if i == 0:
                fill, hatch = SIGN, ""
            elif i <= f.exponent:
                fill, hatch = EXPONENT, "//"
            else:
                fill, hatch = FRACTION, ""
            s.box(left + i * bit, y, bit, high, fill=fill, hatch=hatch, edge="white")
        for x, value in ((8.2, f.largest), (9.6, f.smallest), (11.5, f.step_at_1)):
            s.text(x, y + high / 2, f"{value:,.0f}" if 1 < value < 1e6 else f"{value:.1e}", 11.5, ha="left")
    for x, fill, hatch, words in ((0.95, SIGN, "", "sign"), (2.3, EXPONENT, "//", "exponent"), (4.1, FRACTION, "", "fraction")):
        s.box(x, 3.02, 0.34, 0.2, fill=fill, hatch=hatch, edge="white")
        s.text(x + 0.45, 3.12, words, ha="left")

    def at(value: float) -> float:  # 2^-150 … 2^130 from left to right
        return left + (math.log2(value) + 150) / 280 * 11.6

    s.text(
        0.2,
        2.62,
        "Magnitudes that a number can have (log scale; hatched: with fewer and fewer digits)",
        11.5,
        ha="left",
        weight="bold",
    )
    for line, f in enumerate(FORMATS):
        y = 2.1 - line * 0.36
        s.text(left - 0.15, y + 0.12, f.name, 11, ha="right")
        s.box(at(f.tiniest), y, at(f.smallest) - at(f.tiniest), 0.25, fill="white", hatch="///", edge="#777777")
        s.box(at(f.smallest), y, at(f.largest) - at(f.smallest), 0.25, fill=EXPONENT)
    for power in (-40, -30, -20, -10, 0, 10, 20, 30):
        s.text(at(10.0**power), 0.78, f"1e{power}" if power else "1", 10.5, color=GREY)
    half = FORMATS[-1]
    s.text(0.2, 0.35, f"A gradient below {half.tiniest / 2:.0e} is 0 in fp16, one above {half.largest:,.0f} is infinite: hence loss scaling. "
           "bf16 has fp32's range and needs none.", 11, ha="left", color=MESSAGE)  # fmt: skip
    return s.figure


@drawn
def amp_step() -> Figure:
    """A step in mixed precision: weights and updates stay in 32 bits, forward and backward compute in 16; with fp16 the loss is
    multiplied by a scale, the gradients are divided by it, and a step whose gradients overflowed is skipped."""
    s = Sheet(
        13,
        6.3,
        "One step in mixed precision",
        "After Micikevicius et al., 2017, as torch's autocast and GradScaler do it. Outlined: fp16 only.",
    )
    wide, half = "#a6cde8", "#f0a34a"

    def stop(x: float, y: float, words: str, fill: str, only16: bool = False, w: float = 2.0) -> None:
        s.box(
            x,
            y,
            w,
            0.9,
            words,
            fill,
            edge=MESSAGE if only16 else LINE,
            line=2.6 if only16 else 1.0,
            style=(0, (4, 2)) if only16 else "-",
        )

    stop(0.4, 4.1, "weights\n32 bits", wide)
    stop(3.1, 4.1, "copies of weights\n16 bits", half)
    stop(5.8, 4.1, "forward\nmatmuls, convolutions:\n16 bits", half, w=2.3)
    stop(8.8, 4.1, "loss\n32 bits", wide, w=1.4)
    stop(10.9, 4.1, "× scale S", wide, only16=True, w=1.5)
    stop(10.3, 2.2, "backward\nactivations and their\ngradients: 16 bits", half, w=2.3)
    stop(7.6, 2.2, "gradients of weights\n32 bits, S times\ntoo large", wide, w=2.1)
    stop(5.3, 2.2, "÷ S", wide, only16=True, w=1.5)
    stop(2.9, 2.2, "all finite?", "white", only16=True, w=1.7)
    stop(0.4, 2.2, "update of weights\n32 bits", wide)
    for start, end in (((2.4, 4.55), (3.1, 4.55)), ((5.1, 4.55), (5.8, 4.55)), ((8.1, 4.55), (8.8, 4.55)), ((10.2, 4.55), (10.9, 4.55)),
                       ((11.65, 4.1), (11.65, 3.1)), ((10.3, 2.65), (9.7, 2.65)), ((7.6, 2.65), (6.8, 2.65)), ((5.3, 2.65), (4.6, 2.65)),
                       ((2.9, 2.65), (2.4, 2.65)), ((1.4, 3.1), (1.4, 4.1))):  # fmt: skip
        s.arrow(start, end, linewidth=1.8)
    s.text(2.65, 2.9, "yes", 11)
    s.arrow((3.75, 2.2), (3.75, 1.6), MESSAGE, linewidth=1.8)
    s.text(3.95, 1.92, "no", 11, ha="left", color=MESSAGE)
    stop(2.6, 0.7, "skip this update\nS = S / 2", "white", only16=True, w=2.3)
    s.text(5.3, 1.28, "S doubles after 2,000 steps without overflow (torch's default).", 11, ha="left", color=GREY)
    s.text(5.3, 0.95, "bf16 has fp32's range: S stays 1, and no step is skipped.", 11, ha="left", color=GREY)
    for x, fill, words in ((0.4, wide, "32 bits"), (1.9, half, "16 bits")):
        s.box(x, 0.2, 0.34, 0.2, fill=fill)
        s.text(x + 0.45, 0.3, words, ha="left")
    return s.figure


@drawn
def factors() -> Figure:
    """Cache and mixed precision lead to the same total in either order; but the factor of each depends on which came before, because
    each shortens only its own part of a step."""
    s = Sheet(13, 7.3, "Factors: what each change brings depends on what came before")
    table = params.published_by_name()
    names = {"base": "single_gpu_resnet18_bs256_cacheFalse_ampFalse", "cache": "single_gpu_resnet18_bs256_cacheTrue_ampFalse",
                             "amp": "single_gpu_resnet18_bs256_cacheFalse_ampTrue", "both": "single_gpu_resnet18_bs256_cacheTrue_ampTrue",
                             "ranks": "ddp_nccl_resnet18_bs128x2_cacheTrue_ampTrue"}  # fmt: skip
    rates = {key: table[name]["avg_throughput_img_s"] for key, name in names.items()}
    s.text(0.2, 6.6, "As published, images/s:", 11.5, ha="left", color=GREY)
    spots = {"base": (0.4, 5.2, "baseline"), "cache": (4.0, 5.95, "+ cache"), "amp": (4.0, 4.45, "+ amp"), "both": (7.6, 5.2, "cache and amp"),
             "ranks": (10.9, 5.2, "on two GPUs (DDP)")}  # fmt: skip
    for key, (x, y, words) in spots.items():
        s.box(x, y, 1.9, 0.66, f"{words}\n{rates[key]:,.0f}", "#eeeeee")
    for one, two in (("base", "cache"), ("base", "amp"), ("cache", "both"), ("amp", "both"), ("both", "ranks")):
        (x0, y0, _), (x1, y1, _) = spots[one], spots[two]
        start, end = (x0 + 1.9, y0 + 0.33), (x1, y1 + 0.33)
        s.arrow(start, end, linewidth=1.8)
        beside = -0.28 if "amp" in (one, two) else 0.28  # not on the arrow: below those of the lower way, above the others
        s.text((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + beside, f"×{rates[two] / rates[one]:.2f}", 12, weight="bold")
    s.text(
        0.2,
        3.85,
        "The simplest model: a step is a sum of parts, and a change shortens one of them (lengths are not measured):",
        11.5,
        ha="left",
        color=GREY,
    )
    bars = [("baseline", 3.0, 5.0, 0.0), ("+ cache", 0.6, 5.0, 0.0), ("+ amp", 3.0, 2.5, 0.0), ("cache and amp", 0.6, 2.5, 0.0),
            ("on two GPUs", 0.3, 1.25, 3.3)]  # fmt: skip
    for line, (words, data, compute, exchange) in enumerate(bars):
        x, y = 2.0, 3.2 - line * 0.5
        s.text(x - 0.15, y + 0.18, words, ha="right")
        for kind, wide in (("data", data), ("backward", compute), ("exchange", exchange)):
            if wide:
                s.work(kind, x, y, wide * 1.05, 0.36)
                x += wide * 1.05
    s.key(2.0, 0.75, {"data": "waiting for data", "backward": "computing", "exchange": "exchange, exposed"}, 2.2)
    s.text(2.0, 0.35, "What is not shortened sets the limit (Amdahl, 1967): the more one part shrinks, the more the others weigh.", 11, ha="left",
           color=WORK["backward"][0])  # fmt: skip
    return s.figure
