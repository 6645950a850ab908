"""Colours that can be told apart on a projector and in grey, and seen on white.

Lightness is L* of CIE 1976 L*a*b* (0 black, 100 white): the scale on which equal steps look equal. Two colours that differ in it differ
in grey, too. Contrast is that of WCAG 2.1, which asks for 3:1 for the lines of a picture; on white that is L* of at most 61.
"""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.colors import to_rgb

Rgb = tuple[float, float, float]
# sRGB with white D65 (IEC 61966-2-1): linear red, green, blue to X, Y, Z, each relative to white; and back.
TO_XYZ = ((0.43395, 0.37621, 0.18984), (0.21264, 0.71517, 0.07219), (0.01776, 0.10947, 0.87277))
TO_RGB = ((3.07990, -1.53715, -0.54278), (-0.92123, 1.87601, 0.04524), (0.05289, -0.20402, 1.15115))
DARKEST, LIGHTEST = 18.0, 60.0  # lightness of rows: darker ones all look black, lighter ones are pale on white
TURN = 45.0  # degrees: the hues of rows of one strategy reach so far to both sides of the strategy's hue
GREY, TINT = 5.0, 22.0  # a colour with less chroma than GREY has no hue; its rows get this chroma


def lighter(colour: str, white: float) -> tuple[float, ...]:
    """(red, green, blue) of a colour mixed with white: white=0 leaves it as it is, white=1 is white."""
    return tuple(part + (1 - part) * white for part in to_rgb(colour))


def ink(colour: Any) -> str:
    """ "black" or "white": the one that is easier to read on this background colour."""
    red, green, blue = to_rgb(colour)
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "black"


def times(matrix: Sequence[Sequence[float]], vector: Sequence[float]) -> list[float]:
    """The product of a matrix and a vector."""
    return [sum(a * b for a, b in zip(line, vector, strict=True)) for line in matrix]


def linear(colour: Any) -> list[float]:
    """Linear red, green, blue of a colour, without sRGB's exponent."""
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]


def lab(colour: Any) -> list[float]:
    """L*, a*, b* of a colour."""
    x, y, z = (
        value ** (1 / 3) if value > 216 / 24389 else (24389 / 27 * value + 16) / 116 for value in times(TO_XYZ, linear(colour))
    )
    return [116 * y - 16, 500 * (x - y), 200 * (y - z)]


def lightness(colour: Any) -> float:
    """L* of a colour, 0 to 100."""
    return lab(colour)[0]


def contrast_with_white(colour: Any) -> float:
    """The contrast ratio of a colour and white, 1 to 21."""
    return 1.05 / (times(TO_XYZ, linear(colour))[1] + 0.05)


def at_lightness(colour: Any, level: float, turn: float = 0.0) -> Rgb:
    """The colour with the lightness `level`, its hue turned by `turn` degrees, and as much of its chroma as sRGB can show."""
    _, a, b = lab(colour)
    chroma, hue = math.hypot(a, b), math.atan2(b, a) + math.radians(turn)
    if chroma < GREY:  # no hue to turn: a tint that is almost grey, from red over brown to green
        chroma, hue = (TINT if turn else 0.0), math.radians(70 + 2 * turn)
    while True:
        y = (level + 16) / 116
        roots = (y + chroma * math.cos(hue) / 500, y, y - chroma * math.sin(hue) / 200)
        xyz = [root**3 if root > 6 / 29 else (116 * root - 16) * 27 / 24389 for root in roots]
        parts = times(TO_RGB, xyz)
        if chroma == 0 or all(-0.001 <= part <= 1.001 for part in parts):
            red, green, blue = (min(max(part, 0.0), 1.0) for part in parts)
            return exponent(red), exponent(green), exponent(blue)
        chroma = max(0.0, chroma - 1)


def exponent(part: float) -> float:
    """sRGB's value of a linear part."""
    return 12.92 * part if part <= 0.0031308 else 1.055 * part ** (1 / 2.4) - 0.055


def row_colours(colours: Sequence[str]) -> list[Rgb]:
    """A colour for each row of a picture, from the colours of their strategies.

    No two rows have the same lightness: the levels go from DARKEST to LIGHTEST in equal steps. They are dealt in turn to the
    strategies, so that rows of one strategy are far apart; these also differ in hue, up to TURN to both sides. Of the levels of a
    strategy, a dark one and a light one follow each other, because neighbours are compared most often."""
    if len(colours) == 1:
        return [at_lightness(colours[0], min(lightness(colours[0]), LIGHTEST))]
    nth = [colours[:at].count(colour) for at, colour in enumerate(colours)]
    dealt = sorted(range(len(colours)), key=lambda at: (nth[at] / colours.count(colours[at]), colours.index(colours[at])))
    levels = {at: DARKEST + rank * (LIGHTEST - DARKEST) / (len(colours) - 1) for rank, at in enumerate(dealt)}
    found = []
    for at, colour in enumerate(colours):
        same = [other for other in dealt if colours[other] == colour]
        own = nth[at] // 2 + nth[at] % 2 * ((len(same) + 1) // 2)  # of 5: 0, 3, 1, 4, 2
        turn = TURN * (2 * own / (len(same) - 1) - 1) if len(same) > 1 else 0.0
        found.append(at_lightness(colour, levels[same[own]], turn))
    return found
