"""One notebook through papermill, in a process of its own: what `labkit.batch.batch` starts. Loads neither torch nor pandas.

It gets ready (a kernel, which imports what all notebooks show figures with, and papermill), and waits for its job, a line of JSON
on standard input. Into the file `events` goes a line when a cell starts, and a last one on how it ended; what is
printed here, by papermill or by the kernel below Python, goes where the caller sends it.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
from contextlib import suppress
from typing import Any

from labkit.batch.notebooks import import_jsonschema
from labkit.runs.folders import quiet

IOPUB_S = 60  # longest wait for a cell's outputs after it has ended
START_S = 60  # for a kernel
SHOWING = (
    "labkit.checks, labkit.drawings.gallery, labkit.plots.groups, labkit.plots.lessons, labkit.notebook.live, labkit.plots.traces"
)


def end_with_parent(parent: int) -> None:
    """Die when the batch does, whatever kills it. The kernel looks for its own parent, us, once a second."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


class AtomicFile:
    """How papermill writes the executed notebook: whole, so that it can be read whenever we are killed."""

    def write(self, text: str, path: str) -> None:
        draft = f"{path}.draft"
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(draft, path)

    def pretty_path(self, path: str) -> str:
        return path


def start_kernel(cwd: str) -> Any:
    """Start a kernel of the Python that runs here, whatever kernels are installed under the name python3. Returns its manager.

    It imports matplotlib, and what of ours needs it, before it answers: no name of its own is set by that."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_core.utils import run_sync

    manager = AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), transport_encryption="auto"
    )
    arguments = ["--HistoryManager.hist_file=:memory:"]  # as nbclient would
    arguments.append(f"--IPKernelApp.exec_lines=exec('import {SHOWING}', {{}})")
    run_sync(manager.start_kernel)(cwd=cwd, extra_arguments=arguments)
    return manager


def get_ready(cwd: str) -> Any:
    """Start a kernel, import papermill meanwhile, and return the kernel's manager when both are there."""
    manager = start_kernel(cwd)
    import_jsonschema()
    importlib.import_module("papermill")
    from jupyter_core.utils import run_sync

    client = manager.client()
    client.start_channels()
    with suppress(RuntimeError):  # it died, or takes too long: papermill will find out, and its notebook's status will tell
        run_sync(client.wait_for_ready)(timeout=START_S)
    client.stop_channels()
    return manager


def execute(job: dict[str, Any], manager: Any, events: Any) -> tuple[str, str]:
    """Run the notebook in a kernel to its end, and return its status and the reason."""
    from jupyter_core.utils import run_sync
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill import execute_notebook
    from papermill.exceptions import PapermillExecutionError
    from papermill.iorw import papermill_io

    at, kernel = "before its first cell", None

    def on_cell_start(cell: Any, cell_index: int) -> None:
        nonlocal at, kernel
        at, kernel = f"in cell {cell_index + 1}", manager.provisioner.process
        events.write(json.dumps({"cell": cell_index + 1}) + "\n")

    papermill_io.register(job["output"], AtomicFile())
    try:
        execute_notebook(
            job["notebook"],
            job["output"],
            parameters=job["parameters"],
            kernel_name="python3",
            engine_name=engine(),
            progress_bar=False,
            execution_timeout=job["cell_timeout_s"],
            cwd=job["cwd"],
            km=manager,
            on_cell_start=on_cell_start,
            coalesce_streams=True,
            iopub_timeout=IOPUB_S,
            store_widget_state=False,
        )
    except PapermillExecutionError as error:
        status = "interrupted" if error.ename == "KeyboardInterrupt" else "failed"
        return status, f"In [{error.exec_count}]: {error.ename}: {error.evalue}"
    except CellTimeoutError as error:
        late = f"its outputs did not come within {IOPUB_S} s" if "IOPub" in str(error) else f"more than {job['cell_timeout_s']} s"
        return "timeout", f"{at}: {late}"
    except DeadKernelError:
        return "kernel died", f"{at}: {exit_of(kernel)}"
    except RuntimeError as error:
        if "Kernel died" not in str(error):
            raise
        return "kernel died", at
    finally:
        run_sync(manager.shutdown_kernel)(now=True)  # its processes end with it, and its temporary files go with the batch's
    return "ok", ""


def engine() -> str:
    """Register papermill's engine under another name, with fewer writes. It would write the notebook, pictures and all, whenever
    a cell starts or ends, which takes as long as many a cell; when a cell of code starts is enough to keep all outputs so far."""
    from papermill.engines import NBClientEngine, papermill_engines

    class FewerWrites(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, *args: Any, **kwargs: Any) -> None:
            write = nb_man.save

            def save() -> None:
                if any(c.cell_type == "code" and c.metadata.papermill["status"] == nb_man.RUNNING for c in nb_man.nb.cells):
                    write()

            nb_man.save = save
            try:
                super().execute_managed_notebook(nb_man, *args, **kwargs)
            finally:
                nb_man.save = write  # papermill writes once more when all is over, however it ended

    papermill_engines.register("fewer writes", FewerWrites)
    return "fewer writes"


def exit_of(kernel: Any) -> str:
    """In words, how a kernel's process ended."""
    code = kernel.returncode
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
    return "it was gone" if code is None else f"it left with exit code {code}"


def main() -> None:
    start = json.loads(sys.argv[1])
    end_with_parent(start["parent"])
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches us as well: the batch decides, and ends us
    with quiet(alone=False):  # another notebook may be at work: no row of it is to be measured meanwhile
        manager = get_ready(start["cwd"])
    job = json.loads(sys.stdin.readline())
    with open(start["events"], "a", buffering=1, encoding="utf-8") as events:
        status, reason = execute(job, manager, events)
        events.write(json.dumps({"status": status, "reason": reason}) + "\n")
    sys.stdout.flush()
    os._exit(0)  # nothing is left to do, and taking all modules down would take a tenth of a second


if __name__ == "__main__":
    main()
