"""How an exercise is judged: the student's function is called, what comes back is compared, and the verdict explains.

A student's mistake is never an exception here. Whatever the function does (nothing, raise, return another shape), the verdict
says what was called, what came back, what was expected and why. An interrupt passes through.
"""

from __future__ import annotations

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
    """What a check found. `picture` is fixed-width text: a schedule, a table. True where it passed."""

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
        return f"✓ {self.exercise}: passed." if self.passed else f"✗ {self.exercise}: not yet."

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        back, edge = COLOURS[self.passed]
        box = f"background:{back};color:#1a1a1a;border-left:6px solid {edge};padding:8px 12px"
        parts = [f'<b style="color:{edge}">{html.escape(self.head())}</b> {marked_up(self.message)}']
        if self.picture:
            parts.append(
                f'<pre style="background:none;color:inherit;margin:6px 0;overflow-x:auto">{html.escape(self.picture)}</pre>'
            )
        if self.hint:
            parts.append(f"<p style='margin:6px 0 0'>Hint: {marked_up(self.hint)}</p>")
        return {"text/html": f'<div style="{box}">{"".join(parts)}</div>', "text/plain": str(self)}


def marked_up(text: str) -> str:
    """HTML of a text in which `names` stand between backticks."""
    return re.sub("`([^`\n]+)`", r"<code>\1</code>", html.escape(text))


class NotYet(Exception):
    """The student's function does not do what it should. Becomes a Verdict; leaves this package never."""

    def __init__(self, message: str, hint: str = "", picture: str = ""):
        super().__init__(message)
        self.hint, self.picture = hint, picture


class Student:
    """The student's function, called with care."""

    def __init__(self, function: Any, signature: str, returns: str):
        self.name, self.signature, self.returns = signature.partition("(")[0], signature, returns
        if not callable(function):
            raise NotYet(
                f"The check was given {shown(function)}, which is no function. Expected: {signature}.",
                f"Hand over the function itself, without brackets: check_{self.name}({self.name})",
            )
        self.function = function
        try:
            self.parameters: inspect.Signature | None = inspect.signature(function)
        except ValueError:
            self.parameters = None  # a builtin that does not tell

    def text(self, *arguments: Any) -> str:
        return f"{self.name}({', '.join(map(shown, arguments))})"

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns, as plain Python: lists for tuples, arrays, tensors and generators. Raises NotYet."""
        call = self.text(*arguments)  # now: the function may change its arguments
        try:
            if self.parameters:
                self.parameters.bind(*arguments)
        except TypeError as error:
            raise NotYet(f"It cannot be called as {call}: {error}. Expected: {self.signature}.") from None
        try:
            value = plain(self.function(*arguments))
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise NotYet(f"{call} raised {said}{self.place(error)}. Expected: {self.returns}.") from None
        if value is None or value is ...:
            hint = "Write the body, and end it with `return`." if value is None else "Write something in place of the `...`."
            raise NotYet(f"{call} returned {'None' if value is None else '...'}. Expected: {self.returns}.", hint)
        return value

    def place(self, error: BaseException) -> str:
        """Where in the student's code it happened, if that can be told."""
        file = getattr(getattr(self.function, "__code__", None), "co_filename", None)
        lines = [frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file and frame.line]
        return f", at `{lines[-1].strip()}`" if lines else ""

    def gives(
        self, *arguments: Any, expected: Any, why: str = "", hint: str = "", mistakes: Iterable[tuple[Any, str]] = ()
    ) -> None:
        """Raise NotYet unless the function gives what is expected. `mistakes`: known wrong answers, and what each comes from."""
        value = self(*copy.deepcopy(arguments))
        if same(value, plain(expected)):
            return
        found = next((text for wrong, text in mistakes if same(value, plain(wrong))), "")
        reason = found or why
        call = self.text(*arguments)
        raise NotYet(f"{call} returned {shown(value)}, expected {shown(plain(expected))}.{' ' * bool(reason)}{reason}", hint)

    def pair(self, *arguments: Any, of: str) -> list[Any]:
        """A returned pair; `of` says in words what it holds."""
        value = self(*arguments)
        if not isinstance(value, list) or len(value) != 2:
            raise NotYet(f"{self.text(*arguments)} returned {shown(value)}, expected a pair: {of}.")
        return value

    def passed(self, message: str, picture: str = "") -> Verdict:
        return Verdict(True, self.name, message, picture=picture)


@dataclass(frozen=True)
class Exercise:
    """One exercise: the groups whose notebooks it suits, the signature of the student's function, what it returns in words."""

    check: Callable[[Any], Verdict]
    groups: tuple[int, ...]
    signature: str
    returns: str


EXERCISES: dict[str, Exercise] = {}


def exercise(*groups: int, signature: str, returns: str) -> Callable[[Callable[[Student], Verdict]], Callable[[Any], Verdict]]:
    """Make a check that is called with the student's function and always answers with a Verdict."""

    def decorate(check: Callable[[Student], Verdict]) -> Callable[[Any], Verdict]:
        @functools.wraps(check)
        def judged(function: Any) -> Verdict:
            try:
                return check(Student(function, signature, returns))
            except NotYet as wrong:
                return Verdict(False, signature.partition("(")[0], str(wrong), wrong.hint, wrong.picture)

        judged.__doc__ = f"{inspect.cleandoc(check.__doc__ or '')}\n\nThe student's function: {signature}\nIt returns {returns}."
        EXERCISES[check.__name__] = Exercise(judged, groups, signature, returns)
        return judged

    return decorate


def plain(value: Any) -> Any:
    """The same in numbers, strings, dicts and lists."""
    if hasattr(value, "tolist"):  # numpy's and torch's
        return value.tolist()
    if isinstance(value, (str, bytes, dict)) or not isinstance(value, Iterable):
        return value
    return [plain(item) for item in itertools.islice(value, LONGEST)]


def same(value: Any, expected: Any) -> bool:
    """Equal, with a small tolerance for numbers."""
    if isinstance(expected, list):
        return isinstance(value, list) and len(value) == len(expected) and all(map(same, value, expected))
    if isinstance(expected, bool) or not isinstance(expected, numbers.Real) or not isinstance(value, numbers.Real):
        return bool(value == expected)
    both_nan = math.isnan(value) and math.isnan(expected)
    return both_nan or math.isclose(value, expected, rel_tol=1e-6, abs_tol=1e-12)


def whole(value: Any) -> bool:
    """Is it a whole number (True and False are not meant)?"""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value as it stands in a sentence: short."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        inside = [shown(item) for item in value[:12]] + (["…"] if len(value) > 12 else [])
        opened, closed = "()" if isinstance(value, tuple) else "[]"
        return f"{opened}{', '.join(inside)}{',' * (opened == '(' and len(value) == 1)}{closed}"
    if callable(value):
        return getattr(value, "__name__", "a function")
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
