"""The points at which one task may be switched for another, by name.

``python -m pyksm.tasks.points [FILE]`` prints them function by function, or writes them into the
page that lists them (docs/tasks.md), between its two marks.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pyksm.tasks.core import ffi, lib

#: In the order of the core's numbers.
NAMES: tuple[str, ...] = tuple(
    ffi.string(lib.pyksm_task_point_name(index)).decode("ascii")
    for index in range(lib.pyksm_nr_task_points())
)

_INDEX = {name: index for index, name in enumerate(NAMES)}

BEGIN, END = "<!-- points: begin -->\n", "<!-- points: end -->"


def index_of(name: str) -> int:
    """The core's number of a point; KeyError where there is none of that name."""
    return _INDEX[name]


def table() -> str:
    """A table of all points, by the function that has them."""
    of: dict[str, list[str]] = {}
    for name in NAMES:
        function, colon, what = name.partition(":")
        of.setdefault(function if colon else "", []).append(what if colon else name)
    lines = ["| in | what comes next |", "| --- | --- |"]
    for function in sorted(of):
        where = f"`{function}:`" if function else "wherever it is done"
        lines.append(f"| {where} | {', '.join(f'`{each}`' for each in of[function])} |")
    return "\n".join(lines) + "\n"


def in_page(text: str) -> str:
    """A page with the table between its marks."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    if len(sys.argv) == 2:
        page = Path(sys.argv[1])
        page.write_text(in_page(page.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table(), end="")
