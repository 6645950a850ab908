"""`labkit.torchrun` with a fault: rank 1 suffers LABKIT_TEST_FAULT in its second step."""

import os
import signal

import typer

from labkit import torchrun
from labkit.engine.measure import Progress

at = Progress.at


def at_with_fault(self, phase, epoch=None, step=0):
    at(self, phase, epoch, step)
    if (self.rank, phase, step) == (1, "step", 1):
        if os.environ["LABKIT_TEST_FAULT"] == "raise":
            raise ValueError("picture 17 is broken")
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    Progress.at = at_with_fault
    typer.run(torchrun.main)
