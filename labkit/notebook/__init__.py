"""What a cell of a notebook calls."""

from typing import Any

STOPPED = "stopped. Results of runs that had finished are kept; run the cell again to go on."


def stops_in_one_line() -> None:
    """From now on, a cell that is stopped shows one line in place of a traceback. It still fails, also for papermill."""
    from IPython import get_ipython  # late: labkit calls this only where IPython is loaded

    def show(shell: Any, kind: Any, stop: Any, frames: Any, tb_offset: Any = None) -> None:
        stop._render_traceback_ = lambda: [f"KeyboardInterrupt: {STOPPED}"]  # how an exception tells IPython what to show
        shell.showtraceback((kind, stop, frames))

    shell = get_ipython()
    if shell is not None:
        shell.set_custom_exc((KeyboardInterrupt,), show)
