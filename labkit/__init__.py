"""labkit: every row of a report on distributed training, as something to run, watch, understand and trust.

    import labkit as lab
    lab.run(1)                           # the rows of group 1, at the quick profile
    lab.run("ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse", profile="classroom", repeats=3)
    lab.table("quick")                   # what has been run

The notebooks use the rest: `Lesson` for a group, `diff`, `code`, `drawing` and `networks` to explain, `split`, `holds` and `timeline` to look
closer, `say` for what only the outcome can tell. Importing labkit loads neither torch nor pandas; what needs them does.
"""

from labkit.params import group, groups, profile, profile_names, published
from labkit.spec import Spec, SpecError

__version__ = "0.1.0"  # pyproject.toml reads it here, so that a checkout that was never installed has one, too

LAZY = {  # name -> the module that is imported when somebody asks for it; no name is a module's, which would hide it
    "Lesson": "lesson",
    "Grid": "show",
    "Picture": "show",
    "Text": "show",
    "accuracy": "shown",
    "agreement": "shown",
    "check_machine": "shown",
    "checks": "checks",
    "code": "sources",
    "comparison": "widgets",
    "diff": "sources",
    "drawing": "shown",
    "explorer": "widgets",
    "factors": "shown",
    "glossary": "terms",
    "holds": "shown",
    "kept": "ran",
    "messages": "shown",
    "networks": "shown",
    "over": "show",
    "overview": "shown",
    "rows_table": "widgets",
    "run": "runs",
    "say": "show",
    "split": "shown",
    "staleness": "shown",
    "table": "results",
    "tell": "show",
    "timeline": "shown",
}
__all__ = ["Spec", "SpecError", "group", "groups", "profile", "profile_names", "published", *LAZY]


def __getattr__(name: str):
    if name not in LAZY:
        raise AttributeError(f"module 'labkit' has no attribute '{name}'; it has {', '.join(__all__)}")
    from importlib import import_module

    module = import_module(f"labkit.{LAZY[name]}")
    return module if name == "checks" else getattr(module, name)
