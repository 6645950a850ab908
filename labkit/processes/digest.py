"""A digest of the code that decides what a run trains and how it is measured. A kept result is valid only for the same digest."""

import hashlib
from pathlib import Path

from labkit.rows.kinds import own_strategies

ENGINE = ("data", "engine", "processes", "rows", "runs", "strategies", "system")  # folders, with every file in them


def code_digest(strategy: str = "") -> str:
    """A digest of the files that decide what is trained and how it is measured; plots and texts are not among them.

    `strategy`: for the rows of a strategy of one's own, whose file is not in labkit/ and counts for no other row."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    files = [path for folder in ENGINE for path in (package / folder).rglob("*.py")]
    for path in sorted([package / "strategy.py", *files]):
        digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    if own := own_strategies().get(strategy):
        digest.update(own.read_bytes())
    return digest.hexdigest()[:16]
