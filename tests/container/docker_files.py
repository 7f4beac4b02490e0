"""Reads Dockerfiles and .dockerignore as an engine does."""

import re
import shlex
from pathlib import PurePosixPath


def read_instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, rest) of a Dockerfile in order; comments dropped, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    pairs = (line.strip().split(None, 1) for line in joined.splitlines() if line.strip())
    return [(word.upper(), rest.strip()) for word, rest in pairs]


def copied_sources(instructions: list[tuple[str, str]]) -> list[str]:
    """Sources that COPY takes out of the build context."""
    words = [shlex.split(rest) for name, rest in instructions if name == "COPY"]
    return [word for line in words for word in line[:-1] if not word.startswith("--")]


def arguments_of(instructions: list[tuple[str, str]]) -> dict[str, str]:
    """The build arguments and their defaults."""
    pairs = (rest.partition("=") for name, rest in instructions if name == "ARG")
    return {name: value.strip("\"'") for name, _, value in pairs}


def _expression(pattern: str) -> re.Pattern[str]:
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.findall(r"\*\*/|\*\*|\*|\?|[^*?]+", pattern.strip("/"))
    return re.compile("".join(meaning.get(piece, re.escape(piece)) for piece in pieces))


def is_in_context(dockerignore: str, path: str) -> bool:
    """True if a file reaches the build: the last line that fits it or a folder above it decides."""
    names = [path, *(str(parent) for parent in PurePosixPath(path).parents if str(parent) != ".")]
    is_kept_out = False
    for line in dockerignore.splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        is_exception = pattern.startswith("!")
        expression = _expression(pattern.removeprefix("!"))
        if any(expression.fullmatch(name) for name in names):
            is_kept_out = not is_exception
    return not is_kept_out
