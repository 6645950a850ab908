"""A process that ends with its parent, whatever ends the parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from multiprocessing import connection, forkserver, parent_process
from typing import Any


def end_with_parent(parent: int | None = None) -> None:
    """Make this process die when its parent does: by the kernel (even if it is stopped or holds the GIL), and by a thread.

    `parent`: the process number of the parent, if the caller knows it. It may have died before this call, and then
    this process ends at once. A rank's parent is the fork server, which ends when its last writer is gone; a fork inherits that write end and
    would keep the server, and so itself, alive: it is closed here. The thread watches the process that asked.
    """
    server: Any = forkserver._forkserver
    if getattr(server, "_forkserver_alive_fd", None) is not None:
        with contextlib.suppress(OSError):
            os.close(server._forkserver_alive_fd)
        server._forkserver_alive_fd = None
    parent = parent or os.getppid()
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    if launcher := parent_process():
        threading.Thread(target=lambda: (connection.wait([launcher.sentinel]), os._exit(1)), daemon=True).start()
