"""One notebook through papermill, in a process of its own: what `labkit.batch.batch` starts. Loads neither torch nor pandas.

Its job is its argument, as JSON. It writes a line into the file `events` when a cell starts, and a last line with the
status. What is printed here, by papermill or by the kernel below Python, goes where the caller sends it.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from labkit.batch.notebooks import import_jsonschema
from labkit.system.errors import killed_by
from labkit.system.files import write_whole
from labkit.system.lifeline import end_with_parent

IOPUB_S = 60  # longest wait for a cell's outputs after it has ended


class AtomicFile:
    """How papermill writes the executed notebook: whole, so that it can be read whenever we are killed."""

    def write(self, text: str, path: str) -> None:
        """Write a notebook whole or not at all."""
        write_whole(Path(path), text.encode())

    def pretty_path(self, path: str) -> str:
        """papermill asks for the path to print."""
        return path


def start_kernel(cwd: str) -> Any:
    """Start a kernel of the Python that runs here, whatever kernels are installed under the name python3. Returns its manager.

    Nobody waits for it here: it gets ready while this process imports papermill."""
    from jupyter_client.kernelspec import KernelSpecManager  # late: so that tests import this file without Jupyter
    from jupyter_client.manager import AsyncKernelManager  # late: as above
    from jupyter_core.utils import run_sync  # late: as above

    manager = AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), transport_encryption="auto"
    )
    run_sync(manager.start_kernel)(cwd=cwd, extra_arguments=["--HistoryManager.hist_file=:memory:"])  # as nbclient would
    return manager


def execute(job: dict[str, Any], events: Any) -> tuple[str, str]:
    """Run the notebook in a new kernel to its end, and return its status and the reason."""
    manager = start_kernel(job["cwd"])
    import_jsonschema()
    from jupyter_core.utils import run_sync  # late: the kernel gets ready while this and papermill are imported
    from nbclient.exceptions import DeadKernelError  # late: as above
    from papermill import execute_notebook  # late: as above
    from papermill.exceptions import PapermillExecutionError  # late: as above
    from papermill.iorw import papermill_io  # late: as above

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
            execution_timeout=None,
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
    a cell starts or ends, which takes as long as many cells do. Here it is written when a cell of code
    starts: enough to keep all outputs so far."""
    from papermill.engines import NBClientEngine, papermill_engines  # late: after the start of the kernel, see `execute`

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
        return killed_by(code)
    return "it was gone" if code is None else f"it left with exit code {code}"


def main() -> None:
    """Execute the notebook that the command line names as JSON, and report how it ended."""
    job = json.loads(sys.argv[1])
    end_with_parent(job["parent"])  # the kernel looks for its own parent, us, once a second
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches us as well: the batch decides, and ends us
    with open(job["events"], "a", buffering=1, encoding="utf-8") as events:
        status, reason = execute(job, events)
        events.write(json.dumps({"status": status, "reason": reason}) + "\n")
    sys.stdout.flush()
    os._exit(0)  # nothing is left to do, and taking all modules down would take a tenth of a second


if __name__ == "__main__":
    main()
