"""Reading commands out of README files: their shell blocks, line by line, as words."""

from __future__ import annotations

import re
import shlex

SHELLS = {"console", "bash", "sh"}
PLACEHOLDERS = {"NAME": "single_gpu_resnet18_bs128_cacheFalse_ampFalse"}  # what a word in capitals stands for


def blocks(text: str) -> list[tuple[int, str, list[str]]]:
    """(line number of its first line, language, lines) of every fenced block."""
    found: list[tuple[int, str, list[str]]] = []
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r"\s*(`{3,}|~{3,})\s*([\w-]*)", line)
        if not fence and match:
            fence = match[1]
            found.append((number + 1, match[2], []))
        elif fence and line.strip() == fence:
            fence = ""
        elif fence:
            found[-1][2].append(line)
    assert not fence, "a code block is not closed"
    return found


def commands(text: str) -> list[tuple[int, str]]:
    """(line number, command) of every shell block; and of every `make ...` and `labkit ...` between backticks in the text."""
    found: list[tuple[int, str]] = []
    prose = text.splitlines()
    for first, language, lines in blocks(text):
        assert language, f"line {first - 1}: a code block names no language; write ```console, ```text, ```python, ..."
        prompted = language == "console" and any(line.lstrip().startswith("$ ") for line in lines)
        if language not in SHELLS:
            assert not any(line.lstrip().startswith("$ ") for line in lines), f"line {first}: commands in a {language} block"
        pending = ""
        for number, line in enumerate(lines, first):
            prose[number - 1] = ""
            line = line.strip()
            if language not in SHELLS or (prompted and not pending and not line.startswith("$ ")):
                continue  # another language, or what a command printed
            pending += line.removeprefix("$ ") if not pending else " " + line.removeprefix(">").lstrip()
            if pending.endswith("\\"):
                pending = pending[:-1].rstrip()
                continue
            if pending and not pending.startswith("#"):
                found.append((number, pending))
            pending = ""
        assert not pending, f"line {first}: the block ends inside a command"
    for number, line in enumerate(prose, 1):
        for span in re.findall(r"(?<!`)`((?:make|labkit) [^`]+)`(?!`)", line):
            named_only = re.fullmatch(r"labkit \w+", span)  # "see `labkit run`": a subcommand without its arguments
            found.append((number, span + " --help" if named_only else span))
    return sorted(found)


def split(line: str) -> list[list[str]]:
    """The simple commands of one line, without assignments before them and without redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    simple: list[list[str]] = [[]]
    redirected = False
    for word in lexer:
        if redirected:
            redirected = False
        elif word in {"&&", "||", ";", "|", "&"}:
            simple.append([])
        elif set(word) <= set("<>&"):
            redirected = True
        elif simple[-1] or not re.match(r"\w+=", word):
            assert not set(word) <= set("();<>|&"), f"{line!r}: {word!r} is more shell than this test reads"
            simple[-1].append(PLACEHOLDERS.get(word, word))
    return [words for words in simple if words]
