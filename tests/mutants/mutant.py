"""What a mutant is, and how it is put into the C text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One line of the C core written differently.

    ``after``: text that comes before the line, such as the function's head, where ``old`` alone
    is not unique in the file. ``tasks``: it is in the build with tasks, though the plain one has
    that file too.
    """

    file: str
    old: str
    new: str
    why: str
    after: str = ""
    tasks: bool = False


def apply(mutant: Mutant, text: str) -> str:
    """The file's text with the mutant in it; ValueError where the line is not there just once."""
    start = text.find(mutant.after)
    if start < 0:
        raise ValueError(f"{mutant.file}: no {mutant.after!r}")
    found = text.find(mutant.old, start)
    if found < 0:
        raise ValueError(f"{mutant.file}: no {mutant.old!r} after {mutant.after!r}")
    if not mutant.after and text.find(mutant.old, found + 1) >= 0:
        raise ValueError(f"{mutant.file}: {mutant.old!r} is there more than once; say after=")
    end = found + len(mutant.old)
    line_start, line_end = text.rfind("\n", 0, found) + 1, text.find("\n", end)
    if "\n" in mutant.old or text[line_start:line_end].strip() != mutant.old.strip():
        raise ValueError(f"{mutant.file}: {mutant.old!r} is not a whole line")
    return text[:found] + mutant.new + text[end:]
