"""What `.ci/run` installs cannot be absent without a word: its tests are skipped on other machines, and fail in CI."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import promised

ROOT = Path(__file__).parent.parent
RUN = ROOT / ".ci/run"


def test_every_package_that_ci_installs_is_looked_for() -> None:
    assert sorted(re.findall(r"^need (\S+)", RUN.read_text(), re.M)) == sorted(promised.PACKAGES)


@pytest.mark.parametrize("package", promised.PACKAGES)
@pytest.mark.parametrize(
    ("ci", "end"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception), (None, pytest.skip.Exception)]
)
def test_an_absent_package(monkeypatch: pytest.MonkeyPatch, package: str, ci: str | None, end: type[BaseException]) -> None:
    monkeypatch.delenv("CI", raising=False) if ci is None else monkeypatch.setenv("CI", ci)
    monkeypatch.setitem(promised.PACKAGES, package, lambda: False)
    with pytest.raises(end, match=f"apt-get install {package}$"):
        promised.need(package)
    monkeypatch.setitem(promised.PACKAGES, package, lambda: True)
    promised.need(package)


def test_an_absent_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promised, "find_spec", lambda name: None)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"promises .*pip install scikit-learn$"):
        promised.module("sklearn.datasets")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match=r"^pip install scipy$"):
        promised.module("scipy.stats")


TESTS = """
import pytest
from tests.conftest import pytest_runtest_setup
from tests.helpers import promised
promised.PACKAGES["chromium"] = lambda: False
@pytest.fixture(scope="module")
def late(): raise AssertionError("set up without the package")
@pytest.mark.needs("chromium")
def test_it(late): pass
"""


@pytest.mark.parametrize(
    ("ci", "told"), [("true", "absent in CI, and .ci/run promises to install it: apt-get install chromium"), ("", "1 skipped")]
)
def test_the_mark_acts_before_fixtures(tmp_path: Path, ci: str, told: str) -> None:
    """In a pytest of its own, with the package taken away."""
    (tmp_path / "conftest.py").write_text(TESTS.partition("promised.PACK")[0])
    (tmp_path / "test_it.py").write_text(TESTS)
    words = ["-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), str(tmp_path)]
    env = os.environ | {"CI": ci, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "pytest", *words], env=env, capture_output=True, text=True, timeout=120)
    assert told in done.stdout and "set up without" not in done.stdout, done.stdout
    assert (done.returncode != 0) == bool(ci)


STUB = '#!/bin/bash\necho "stub: ${0##*/} $*, CI=${CI-}"\n'


def test_ci_says_that_it_is_ci(tmp_path: Path) -> None:
    """`.ci/run` as it is, where all packages are said to be installed and `make` only tells what it is given."""
    for name, text in (("make", STUB), ("apt-get", STUB), ("dpkg-query", "#!/bin/bash\necho installed\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    env = {key: value for key, value in os.environ.items() if key != "CI"} | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", RUN], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if ": make" in line] == [
        f"stub: make {word}, CI=true" for word in ("lint", "test")
    ]


def test_no_test_looks_for_itself() -> None:
    """A skip of pytest's own would hide an absence in CI. What a machine cannot have (a GPU, another system) is no promise."""
    own = re.compile(r"importorskip\(|pytest\.skip\(|skipif\((?!os\.path\.exists\(\"/dev/nvidia0\"\)|sys\.platform)")
    files = [path for path in (ROOT / "tests").rglob("*.py") if path not in (Path(__file__), Path(promised.__file__))]
    assert {path.name for path in files if own.search(path.read_text())} == set()
