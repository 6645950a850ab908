"""The strategies: each file holds one training step. `strategy_class` finds the class in a file."""

import importlib
import inspect
import sys
import types
from pathlib import Path

from labkit.rows.kinds import own_strategies
from labkit.system.errors import blame


def strategy_class(name: str) -> type:
    """The one class with a `step` in labkit/strategies/<name>.py, or in the file of that name in the folder of one's own.

    Raises ImportError, which names the file, the line and the error, if the file cannot be imported or holds no such class."""
    file = own_strategies().get(name)
    try:
        module = own_module(name, file) if file else importlib.import_module(f"labkit.strategies.{name}")
    except Exception as error:
        raise ImportError(blame(error, file)) from error
    own = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    found = [c for c in own if hasattr(c, "step")]
    if not found:
        raise ImportError(
            f"{file or f'labkit/strategies/{name}.py'}: holds no class with a method `step`; see Strategy in labkit/strategy.py"
        )
    return found[0]


def own_module(name: str, file: Path) -> types.ModuleType:
    """The module of a strategy of one's own, as its file is now. No .pyc is kept of it: Python takes one that is older by less
    than a second for the file's, and a student writes files faster than that."""
    module = types.ModuleType(f"my_strategies.{name}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # a dataclass asks there for the names of its module
    exec(compile(file.read_bytes(), str(file), "exec"), vars(module))
    return module
