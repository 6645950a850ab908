"""Fork servers and ranks on this machine, by their command lines: which process started them, and does it still run?"""

import os
import re

import psutil

SERVER = re.compile(r"multiprocessing\.forkserver import main; main\(\d+, (\d+), .*'labkit\.processes\.preload'")


def workers() -> tuple[set[int], set[int]]:
    """This user's fork servers and ranks that have no launcher any more; and the launchers whose ranks are at work."""
    stray, launchers = set(), set()
    for process in psutil.process_iter():
        try:
            match, parent = SERVER.search(" ".join(process.cmdline())), process.parent()
            if not match or process.uids().real != os.getuid():
                continue
            is_rank = parent is not None and SERVER.search(" ".join(parent.cmdline()))  # a fork has its server's command line
            launcher = launcher_of(parent if parent and is_rank else process, int(match[1]))
        except psutil.Error:  # it has just ended
            continue
        if launcher is None:
            stray.add(process.pid)
        elif is_rank and launcher != os.getpid():
            launchers.add(launcher)
    return stray, launchers


def launcher_of(server: psutil.Process, pipe: int) -> int | None:
    """The process that started a fork server, if it lives. After it died, the parent is whoever adopts orphans: that one
    does not hold the other end of the pipe by which the server learns that its clients are gone."""
    parent = server.ppid()
    try:
        held = {os.readlink(entry.path) for entry in os.scandir(f"/proc/{parent}/fd")}
        return parent if os.readlink(f"/proc/{server.pid}/fd/{pipe}") in held else None
    except OSError:  # not Linux, or not to be seen: call nobody a stray who may not be one
        return parent if parent > 1 else None
