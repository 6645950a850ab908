"""The first module that the fork server imports. What it says from here on goes to a file, and the launcher reads that if it dies.

An import that fails does not end the server. Every rank tries it again, with its log open, and says what is wrong.
"""

import os
import sys
import traceback

import labkit.processes.begin
from labkit.processes.fork_server import LOG

if LOG in os.environ:
    _log = os.open(os.environ[LOG], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(_log, 1)
    os.dup2(_log, 2)
    os.close(_log)
try:
    import labkit.engine.worker  # noqa: F401 - with it torch, which takes seconds
except Exception:
    traceback.print_exc()
    sys.stderr.flush()
