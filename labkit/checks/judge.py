"""How an exercise is judged: a check calls the student's function, compares what it returns, and explains in a Verdict.

A student's mistake never raises here. Whatever the function does (nothing, an exception, a value of another type), the verdict
says what was called, what the function returned, what was expected and why. There is no time limit: an interrupt of the kernel
ends a function that never returns, and passes through.
"""

import copy
import functools
import html
import inspect
import itertools
import math
import numbers
import re
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

LONGEST = 100_000  # elements that are taken from what a student returns: a generator may never end
COLOURS = {True: ("#e6f4ea", "#1e7d32"), False: ("#fdecea", "#b3261e")}  # background, border


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a check found. It is true if the function passed.

    `exercise` is the name of the student's function. `message` and `hint` are sentences; `picture` is fixed-width text, such as
    a schedule or a table. `hint` and `picture` may be empty."""

    passed: bool
    exercise: str
    message: str
    hint: str = ""
    picture: str = ""

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        parts = [f"{self.head()} {self.message}", self.picture, f"Hint: {self.hint}" if self.hint else ""]
        return "\n".join(part for part in parts if part)

    __repr__ = __str__

    def head(self) -> str:
        """The first line: passed, or not yet."""
        return f"✓ {self.exercise}: passed." if self.passed else f"✗ {self.exercise}: not yet."

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        back, edge = COLOURS[self.passed]
        box = f"background:{back};color:#1a1a1a;border-left:6px solid {edge};padding:8px 12px"
        parts = [f'<b style="color:{edge}">{html.escape(self.head())}</b> {marked_up(self.message)}']
        if self.picture:
            # Long lines scroll: JupyterLab would break them in the middle of a word.
            look = "background:none;color:inherit;margin:6px 0;overflow-x:auto;white-space:pre;word-break:normal"
            parts.append(f'<pre style="{look}">{html.escape(self.picture)}</pre>')
        if self.hint:
            parts.append(f"<p style='margin:6px 0 0'>Hint: {marked_up(self.hint)}</p>")
        return {"text/html": f'<div style="{box}">{"".join(parts)}</div>', "text/plain": str(self)}


def marked_up(text: str) -> str:
    """HTML of a text in which `names` stand between backticks."""
    return re.sub("`([^`\n]+)`", r"<code>\1</code>", html.escape(text))


class NotYet(Exception):
    """The student's function does not do what it should. `exercise` turns this into a Verdict; it never leaves this package."""

    def __init__(self, message: str, hint: str = "", picture: str = ""):
        super().__init__(message)
        self.hint, self.picture = hint, picture


class Student:
    """The student's function. A call never lets its exceptions through."""

    def __init__(self, function: Any, signature: str, returns: str):
        self.name, self.signature, self.returns = signature.partition("(")[0], signature, returns
        if not callable(function):
            raise NotYet(
                f"The check was given {shown(function)}, which is not a function. Expected: {signature}.",
                f"Give the function itself, without calling it: check_{self.name}({self.name})",
            )
        self.function = function
        try:
            self.parameters: inspect.Signature | None = inspect.signature(function)
        except ValueError:
            self.parameters = None  # a builtin that does not tell

    def text(self, *arguments: Any) -> str:
        """A call of the student's function, as text."""
        return f"{self.name}({', '.join(map(shown, arguments))})"

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns, as plain Python: a list for a tuple, an array, a tensor or a generator.

        Raises NotYet if the function cannot be called like this, raises, or returns None or `...`."""
        call = self.text(*arguments)  # now: the function may change its arguments
        try:
            if self.parameters:
                self.parameters.bind(*arguments)
        except TypeError as error:
            raise NotYet(f"It cannot be called as {call}: {error}. Expected: {self.signature}.") from None
        try:
            value = plain(self.function(*arguments))
        except (Exception, SystemExit) as error:
            what = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise NotYet(f"{call} raised {what}{self.place(error)}. Expected: {self.returns}.") from None
        if value is None or value is ...:
            hint = (
                "End the function with `return` and a value. `print` only shows a value."
                if value is None
                else "Replace the `...`."
            )
            raise NotYet(f"{call} returned {'None' if value is None else '...'}. Expected: {self.returns}.", hint)
        return value

    def place(self, error: BaseException) -> str:
        """The line of the student's code that raised, if it is known."""
        file = getattr(getattr(self.function, "__code__", None), "co_filename", None)
        lines = [frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file and frame.line]
        return f", at `{lines[-1].strip()}`" if lines else ""

    def gives(self, arguments: tuple, *, expected: Any, why: str, mistakes: Iterable[tuple[Any, str]], hint: str = "") -> None:
        """Raise NotYet unless the function returns what is expected for these arguments.

        `mistakes` are known wrong answers, each with a sentence that explains it. `why` explains the right answer; it is shown for
        every other wrong answer. The function gets copies of the arguments, so that it may change them."""
        value = self(*copy.deepcopy(arguments))
        if same(value, plain(expected)):
            return
        reason = next((text for wrong, text in mistakes if same(value, plain(wrong))), "") or why
        call, got, wanted = self.text(*arguments), shown(value), shown(plain(expected))
        if got == wanted:  # they differ in digits that are not shown, or in their types
            got, wanted = f"{value!r} ({type(value).__name__})", f"{expected!r} ({type(expected).__name__})"
        raise NotYet(f"{call} returned {got}, expected {wanted}. {reason}".rstrip(), hint)

    def pair(self, *arguments: Any, of: str) -> list[Any]:
        """The two values that the function returns. `of` describes them. Raises NotYet for anything else."""
        value = self(*arguments)
        if not isinstance(value, list) or len(value) != 2:
            raise NotYet(f"{self.text(*arguments)} returned {shown(value)}, expected a pair: {of}.")
        return value

    def passed(self, message: str, picture: str = "") -> Verdict:
        """The verdict of an exercise that is passed."""
        return Verdict(True, self.name, message, picture=picture)


def exercise(*, signature: str, returns: str) -> Callable[[Callable[[Student], Verdict]], Callable[[Any], Verdict]]:
    """Make a check that takes the student's function and always returns a Verdict.

    `signature` is the line that the student writes, with types; `returns` says what the function returns, with its unit."""

    def decorate(check: Callable[[Student], Verdict]) -> Callable[[Any], Verdict]:
        @functools.wraps(check)
        def judged(function: Any) -> Verdict:
            try:
                return check(Student(function, signature, returns))
            except NotYet as wrong:
                return Verdict(False, signature.partition("(")[0], str(wrong), wrong.hint, wrong.picture)

        judged.__doc__ = f"{inspect.cleandoc(check.__doc__ or '')}\n\nYou write: {signature}\nIt returns {returns}."
        return judged

    return decorate


def plain(value: Any) -> Any:
    """The same value in numbers, strings, dicts, sets and lists. A set stays a set, because it has no order."""
    if hasattr(value, "tolist"):  # numpy's and torch's
        return value.tolist()
    if isinstance(value, (str, bytes, dict, set, frozenset)) or not isinstance(value, Iterable):
        return value
    return [plain(item) for item in itertools.islice(value, LONGEST)]


def same(value: Any, expected: Any) -> bool:
    """Equal; a float may differ by one part in a million. A whole number must be exact, and True is not 1."""
    if isinstance(expected, list):
        return isinstance(value, list) and len(value) == len(expected) and all(map(same, value, expected))
    if isinstance(value, bool) != isinstance(expected, bool):
        return False
    if not isinstance(expected, float) or not isinstance(value, numbers.Real):
        return bool(value == expected)
    try:
        return (math.isnan(value) and math.isnan(expected)) or math.isclose(value, expected, rel_tol=1e-6, abs_tol=1e-12)
    except OverflowError:  # a whole number that is larger than every float
        return False


def whole(value: Any) -> bool:
    """Is it a whole number? True and False are not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value as it stands in a sentence: short."""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        inside = [shown(item) for item in value[:12]] + (["…"] if len(value) > 12 else [])
        if isinstance(value, list):
            return f"[{', '.join(inside)}]"
        return f"({inside[0]},)" if len(value) == 1 else f"({', '.join(inside)})"
    if callable(value):
        return getattr(value, "__name__", "a function")
    try:
        text = repr(value)
    except Exception as error:  # a class of the student's, or a number of too many digits
        return f"a {type(value).__name__} that cannot be shown ({type(error).__name__})"
    return text if len(text) <= 80 else f"{text[:79]}…"
