"""Files spoiled at random, from a seed: values replaced, taken away or added, text cut off, bytes changed."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

SEED = 20240229
ODD: list[Any] = [None, True, 0, -1, 7, 2.5, "", "text", [], [1], [[]], {}, {"a": 1}, [{}], 10**30, -(10**400), 1e300, float("nan"),
                  float("inf"), "\ud800", "a\nb", "\x00", "1" * 5000, [None] * 3, {"": None}, {"staleness": {"x": 1}}]  # fmt: skip


def draws(seed: int, n: int) -> random.Random:
    return random.Random(f"{seed} {n}")


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of nested plain data, the whole first."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path, *(way for key, item in inner for way in places(item, (*path, key)))]


def bent(content: Any, draw: random.Random) -> Any:
    """The same with one or two values replaced, taken away, or added."""
    content = copy.deepcopy(content)
    for _ in range(draw.choice((1, 1, 2))):
        *way, last = draw.choice(places(content)) or (None,)
        if last is None:
            return draw.choice(ODD)
        inner = content
        for key in way:
            inner = inner[key]
        what = draw.choice(("replace", "replace", "remove", "add"))
        if what == "replace":
            inner[last] = draw.choice(ODD)
        elif what == "remove":
            del inner[last]
        elif isinstance(inner, dict):
            inner[draw.choice(["more", "", "\ud800", "a\nb"])] = draw.choice(ODD)
        else:
            inner.append(draw.choice(ODD))
    return content


def torn(text: str, draw: random.Random) -> bytes:
    """The bytes of a text with a piece cut off, a byte changed, or nested a thousand deep."""
    content = bytearray(text.encode())
    at = draw.randrange(len(content))
    what = draw.choice(("cut", "byte", "gone", "deep"))
    if what == "cut":
        del content[at:]
    elif what == "byte":
        content[at] = draw.choice(b'\x00\xff\xc3{[}",;:\n')
    elif what == "deep":
        content[at:at] = b"[" * draw.choice((30, 1000, 100_000))
    return b"" if what == "gone" else bytes(content)


def spoil(path: Path, draw: random.Random) -> None:
    text = path.read_text(encoding="utf-8")
    if draw.random() < 0.25:
        path.write_bytes(torn(text, draw))
    else:
        path.write_text(json.dumps(bent(json.loads(text), draw)), encoding="utf-8")
