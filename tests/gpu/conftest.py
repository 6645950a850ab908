"""What needs two devices does not run on fewer, and does not count as passed there: it is deselected, and a line says why."""

from __future__ import annotations

import pytest

from labkit.system.machine import this_machine

LEFT_OUT = pytest.StashKey[str]()


@pytest.hookimpl(trylast=True)  # after `-m` has chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    needing = [item for item in items if item.get_closest_marker("two_devices")]
    if needing and (devices := len(this_machine().cuda)) < 2:
        items[:] = [item for item in items if item not in needing]
        config.hook.pytest_deselected(items=needing)
        names = ", ".join(item.name for item in needing)
        config.stash[LEFT_OUT] = f"not run: {names}: needs two CUDA devices, this machine has {devices}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if LEFT_OUT in config.stash:
        terminalreporter.write_line(config.stash[LEFT_OUT])
