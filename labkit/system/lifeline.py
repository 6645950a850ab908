"""Makes a process end when its parent ends, for any reason."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from multiprocessing import connection, forkserver, parent_process
from typing import Any


def end_with_parent(parent: int | None = None) -> None:
    """Make this process end when its parent ends. The kernel kills it (also if it is stopped or holds the GIL); and a thread
    watches the process that asked for it, for systems whose kernel cannot do that.

    `parent`: the process number of the parent, if the caller knows it. The parent may have ended before this call, and
    then this process ends at once.

        launcher  --pipe-->  fork server  --fork-->  rank
                                                     killed by the kernel when the fork server ends
                             ends when nobody holds the write end of its pipe any more

    A rank is a fork of the fork server, so it inherits that write end. If it kept it, the server would never end, and
    the rank would never be killed. So the rank closes it here."""
    server: Any = forkserver._forkserver
    if getattr(server, "_forkserver_alive_fd", None) is not None:
        with contextlib.suppress(OSError):
            os.close(server._forkserver_alive_fd)
        server._forkserver_alive_fd = None
    parent = parent or os.getppid()
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the kernel was asked: nobody would kill us
        os._exit(1)
    if launcher := parent_process():
        threading.Thread(target=lambda: (connection.wait([launcher.sentinel]), os._exit(1)), daemon=True).start()
