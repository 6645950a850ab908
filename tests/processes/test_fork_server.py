"""The fork server: when there is another one."""

from __future__ import annotations

from multiprocessing import forkserver

import pytest

from labkit.processes import fork_server


@pytest.fixture
def server() -> int:
    fork_server.warm(wait=True)
    return forkserver._forkserver._forkserver_pid


def test_the_server_is_replaced_when_the_code_changed_and_only_then(monkeypatch: pytest.MonkeyPatch, server: int) -> None:
    fork_server.warm(wait=True)
    assert forkserver._forkserver._forkserver_pid == server
    monkeypatch.setattr(fork_server, "code_digest", lambda: "edited")
    fork_server.warm(wait=True)
    assert forkserver._forkserver._forkserver_pid != server
