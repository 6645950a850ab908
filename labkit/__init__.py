"""labkit: every row of a report on distributed training, as something to run, watch, understand and trust.

    import labkit as lab
    lab.run(1)                           # the rows of group 1, at the quick profile
    lab.run("ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse", profile="classroom", repeats=3)
    lab.table("quick")                   # what has been run

The notebooks use the rest: `Lesson` for a group, `diff`, `code`, `drawing` and `networks` to explain, `split`, `holds` and `timeline` to look
closer, `say` for what only the outcome can tell. Importing labkit loads neither torch nor pandas; what needs them does.
"""

import sys
from importlib import import_module

from labkit.rows.fields import SpecError
from labkit.rows.params import group, groups, profile, profile_names, published
from labkit.rows.spec import Spec
from labkit.system.machine import VERSION

__version__ = VERSION

LAZY = {  # name -> the module that is imported when somebody asks for it; no name is a module's, which would hide it
    "Lesson": "notebook.lesson",
    "Grid": "notebook.cells",
    "Picture": "notebook.cells",
    "Text": "notebook.cells",
    "accuracy": "notebook.figures",
    "agreement": "notebook.figures",
    "check_machine": "notebook.figures",
    "checks": "checks",
    "code": "notebook.sources",
    "comparison": "notebook.widgets",
    "diff": "notebook.sources",
    "drawing": "notebook.figures",
    "exchange": "notebook.figures",
    "explorer": "notebook.widgets",
    "factors": "notebook.figures",
    "glossary": "notebook.sources",
    "holds": "notebook.figures",
    "kept": "notebook.ran",
    "latency": "notebook.figures",
    "messages": "notebook.figures",
    "networks": "notebook.figures",
    "my_strategies": "proof.prove",
    "over": "notebook.cells",
    "overview": "notebook.figures",
    "prove": "runs.train",
    "reading": "notebook.figures",
    "rows_table": "notebook.widgets",
    "run": "results.table",
    "say": "notebook.cells",
    "sent": "notebook.figures",
    "split": "notebook.figures",
    "staleness": "notebook.figures",
    "table": "results.table",
    "tell": "notebook.cells",
    "timeline": "notebook.figures",
}
__all__ = ["Spec", "SpecError", "group", "groups", "profile", "profile_names", "published", *LAZY]


if "IPython" in sys.modules:  # a notebook
    import_module("labkit.notebook").stops_in_one_line()


def __getattr__(name: str):
    if name not in LAZY:
        raise AttributeError(f"module 'labkit' has no attribute '{name}'; it has {', '.join(__all__)}")
    module = import_module(f"labkit.{LAZY[name]}")
    return module if name == "checks" else getattr(module, name)
