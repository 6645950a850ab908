"""Which limit of this process an error points at: `ulimit -v`, `-u`, `-n`. What the libraries say does not tell."""

from __future__ import annotations

import resource

SIGNS = (
    (resource.RLIMIT_AS, "address space (ulimit -v, here {} KiB)", 1024,
     ("cannot allocate memory", "can't allocate memory", "failed to map segment", "memoryerror", "bad_alloc", "cannot create shared memory")),
    (resource.RLIMIT_NPROC, "the number of processes and threads (ulimit -u, here {}; a container may have a lower one)", 1,
     ("can't start new thread", "resource temporarily unavailable", "pthread_create", "thread creation failed")),
    (resource.RLIMIT_NOFILE, "the number of open files (ulimit -n, here {})", 1, ("too many open files",)),
)  # fmt: skip


def limit_behind(text: str) -> str:
    """The limit that the text of an error points at, as an ending of a sentence; "" if it points at none, or none is set."""
    lowered = text.lower()
    for kind, words, unit, signs in SIGNS:
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY and any(sign in lowered for sign in signs):
            return f" (a limit of this process is too low: {words.format(soft // unit)}; raise it)"
    return ""
