"""What `.ci/run` promises to install. A test that needs it is skipped where it is absent; in CI (`.ci/run` sets the variable of
that name) its absence is a failure, so that no promise is broken in silence."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from labkit.data import raw_files

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """The browser's command, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


PACKAGES: dict[str, Callable[[], object]] = {  # of Debian, each with a look whether it is there
    "chromium": chromium,
    "dataset-fashion-mnist": lambda: raw_files.DEBIAN_FOLDER.is_dir(),
    "fonts-wqy-microhei": lambda: any(Path("/usr/share/fonts").rglob("wqy-microhei*")),
}


def need(package: str) -> None:
    """Skip the test that runs if a Debian package is absent; in CI, fail it."""
    if not PACKAGES[package]():
        absent(f"apt-get install {package}")


def module(name: str) -> ModuleType:
    """A module of a package in requirements.lock that labkit itself can do without."""
    top = name.partition(".")[0]
    if find_spec(top) is None:
        absent(f"pip install {'scikit-learn' if top == 'sklearn' else top}")
    return importlib.import_module(name)


def absent(remedy: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"absent in CI, and .ci/run promises to install it: {remedy}", pytrace=False)
    pytest.skip(remedy)
