"""`labkit doctor`: what of this machine could spoil a run, and what to do. A check yields (level, text) or (level, text, remedy)."""

import shutil
import sys
import time
from dataclasses import dataclass
from typing import Any

from labkit.data import datasets
from labkit.probes.doctor_machine import GIB, Findings, arithmetic, cores, environment, loopback, memory, shared_memory, system
from labkit.processes.diagnose import RunFailed
from labkit.processes.launch import in_a_rank
from labkit.processes.strays import workers
from labkit.rows.catalog import DATASETS
from labkit.rows.params import chinese_letters
from labkit.runs import folders
from labkit.system import machine
from labkit.system.files import try_folder
from labkit.system.fonts import check_backend, font_with


@dataclass
class Finding:
    """level: "ok"; "note": good to know, or makes runs slower; "problem": runs will fail. what: the name of the check. remedy: what
    to do, "" if nothing."""

    level: str
    what: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.level:8} {self.what:14} {self.text}"
        return f"{line}\n{'':23} -> {self.remedy}" if self.remedy else line


def examine() -> list[Finding]:
    """The findings of all checks, in the order of CHECKS. A check that raises becomes a finding of level "problem"."""
    findings = []
    for check in CHECKS:
        what = check.__name__.replace("_", " ")
        try:
            findings += [Finding(level, what, *words) for level, *words in check()]
        except OSError as error:  # one of ours says what to do
            text, _, remedy = str(error).partition("; ")
            findings.append(Finding("problem", what, text, remedy))
        except Exception as error:
            findings.append(Finding("problem", what, f"could not be checked: {type(error).__name__}: {error}"))
    return findings


def torch_build() -> Findings:
    """Can a rank start and import torch, and which backends does torch have?"""
    try:
        answer = in_a_rank("labkit.probes.doctor:torch_of_a_rank")
    except RunFailed as failed:
        remedy = f'`{sys.executable} -c "import torch"` shows whether torch is the reason; if so, `rm -r .venv && make setup`'
        yield "problem", f"no rank could start and import torch: {failed.reason}", remedy
        return
    gloo, nccl = ("available" if answer[name] else "missing" for name in ("gloo", "nccl"))
    text = f"{answer['version']}; gloo {gloo}, nccl {nccl}"
    if answer["gloo"]:
        yield "ok", text
    else:
        yield "problem", text, "rows with several ranks need gloo: install an official build of torch"


def torch_of_a_rank(**_: Any) -> dict[str, Any]:
    """In a rank's process: torch's version, and whether it has the backends gloo and nccl."""
    import torch  # late: keeps torch out of a process that does not need it
    import torch.distributed as dist  # late: keeps torch out of a process that does not need it

    available = {name: dist.is_available() and getattr(dist, f"is_{name}_available")() for name in ("gloo", "nccl")}
    return {"version": torch.__version__} | available


def cuda() -> Findings:
    """The CUDA devices."""
    devices = machine.this_machine().cuda
    for index, name in enumerate(devices):
        yield "ok", f"device {index}: {name}"
    if not devices:
        yield "note", "no device: rows that can run on the CPU do so, other rows say what they need"
    elif len(devices) == 1:
        yield "note", "one device: rows with two ranks need two", "their gloo rows run with --set device=cpu"


def fonts() -> Findings:
    """Is there a font for the Chinese titles of plots?"""
    check_backend()
    if name := font_with(chinese_letters()):
        yield "ok", f"{name} has the characters of the Chinese titles"
    else:
        yield "note", "no font has Chinese characters: plots can only be labelled in English", "apt-get install fonts-noto-cjk"


def data_sets() -> Findings:
    """Where the images of each data set are, or how to get them."""
    for name in DATASETS:
        text = datasets.where(name)
        if text.startswith("not here: "):
            yield "problem", f"{name}: not here", text.removeprefix("not here: ")
        else:
            yield "note" if "can be fetched" in text else "ok", f"{name}: {text}"


def runs_folder() -> Findings:
    """Can results be written, and is there room for them?"""
    folder = folders.runs_folder().absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try_folder(existing)
    text = f"{folder}: {shutil.disk_usage(existing).free / GIB:.1f} GiB free"
    if shutil.disk_usage(existing).free < folders.FREE_BYTES_NEEDED:
        yield "problem", text, "free some space, or set LABKIT_RUNS to another folder"
    else:
        yield "ok", text


def processes() -> Findings:
    """Ranks that outlived their launcher, and trainings that run now."""
    stray, launchers = workers()
    if stray:
        time.sleep(1)  # if their launcher has just ended, they will end in a moment
        stray &= workers()[0]
    if stray:
        numbers = " ".join(map(str, sorted(stray)))
        yield "problem", f"workers without a launcher: {numbers}", f"end them: kill -9 {numbers}"
    for pid in sorted(launchers):
        yield "note", f"process {pid} is training now", "wait for it: two trainings at once slow each other down"
    if not stray and not launchers:
        yield "ok", "no stray workers, and no other training"


CHECKS = (
    system,
    cores,
    arithmetic,
    environment,
    memory,
    shared_memory,
    loopback,
    torch_build,
    cuda,
    fonts,
    data_sets,
    runs_folder,
    processes,
)
