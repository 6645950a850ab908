"""labkit: every row of a report on distributed training, as something to run, watch, understand and trust.

    import labkit
    labkit.run(1)                        # the rows of group 1, at the quick profile
    labkit.run("ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse", profile="classroom", repeats=3)
    labkit.table("quick")                # what has been run

Importing it loads neither torch nor pandas; what needs them loads them.
"""

from labkit.params import group, groups, profile, profile_names, published
from labkit.spec import Spec, SpecError

__all__ = ["Spec", "SpecError", "group", "groups", "profile", "profile_names", "published", "run", "table"]


def __getattr__(name: str):
    if name == "run":
        from labkit.runs import run

        return run
    if name == "table":
        from labkit.results import table

        return table
    raise AttributeError(f"module 'labkit' has no attribute '{name}'; it has {', '.join(__all__)}")
