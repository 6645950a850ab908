"""What must hold for every refusal: one line that names what is wrong."""

from collections.abc import Callable
from typing import Any

import pytest

from labkit import SpecError


def refused(call: Callable[[], Any], *words: Any) -> str:
    """`call` raises SpecError; its message is one line and holds these words. Returns the message."""
    with pytest.raises(SpecError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, f"{word!r} is not in: {message}"
    return message
