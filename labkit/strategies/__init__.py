"""The strategies: each file holds one training step. `strategy_class` finds the class in a file."""

import importlib
import inspect

from labkit.system.errors import blame


def strategy_class(name: str) -> type:
    """The one class with a `step` in labkit/strategies/<name>.py.

    Raises ImportError, which names the file, the line and the error, if the file cannot be imported or holds no such class."""
    try:
        module = importlib.import_module(f"labkit.strategies.{name}")
    except Exception as error:
        raise ImportError(blame(error)) from error
    own = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    found = [c for c in own if hasattr(c, "step")]
    if not found:
        raise ImportError(f"labkit/strategies/{name}.py: holds no class with a method `step`; see Strategy in labkit/strategy.py")
    return found[0]
