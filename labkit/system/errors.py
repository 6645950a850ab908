"""What an error does not tell by itself: where in our own code it arose, and which limit of this process it points at."""

import resource
import signal
import traceback
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
SIGNS = (
    (resource.RLIMIT_AS, "address space (ulimit -v, here {} KiB)", 1024,
     ("cannot allocate memory", "can't allocate memory", "failed to map segment", "memoryerror", "bad_alloc", "cannot create shared memory")),
    (resource.RLIMIT_NPROC, "the number of processes and threads (ulimit -u, here {}; a container may have a lower one)", 1,
     ("can't start new thread", "resource temporarily unavailable", "pthread_create", "thread creation failed")),
    (resource.RLIMIT_NOFILE, "the number of open files (ulimit -n, here {})", 1, ("too many open files",)),
)  # fmt: skip


def blame(error: BaseException, file: Path | None = None) -> str:
    """File, line, class and message of an error that the import of a module of labkit raised, or that of `file`, in one line."""
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno))
        message = error.msg
    else:
        message = str(error)
    ours = [(Path(name), line) for name, line in places if Path(name) == file or Path(name).is_relative_to(PACKAGE)]
    text = f"{type(error).__name__}: {message}"
    if not ours:
        return text
    path, line = ours[-1]
    shown = path.relative_to(PACKAGE.parent) if path.is_relative_to(PACKAGE) else path
    return f"{shown}, line {line}: {text}"


def killed_by(code: int) -> str:
    """How a process ended whose exit code is the negative number of a signal: "killed by SIGSEGV"."""
    hint = " (perhaps by the kernel, because memory ran out)" if code == -signal.SIGKILL else ""
    return f"killed by {signal.Signals(-code).name}{hint}"


def limit_behind(text: str) -> str:
    """The limit that the text of an error points at, as an ending of a sentence; "" if it points at none, or none is set."""
    lowered = text.lower()
    for kind, words, unit, signs in SIGNS:
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY and any(sign in lowered for sign in signs):
            return f" (a limit of this process is too low: {words.format(soft // unit)}; raise it)"
    return ""
