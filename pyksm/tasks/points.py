"""The points at which one task may be switched for another, by name."""

from __future__ import annotations

from pyksm.tasks.core import ffi, lib

#: In the order of the core's numbers.
NAMES: tuple[str, ...] = tuple(
    ffi.string(lib.pyksm_task_point_name(index)).decode("ascii")
    for index in range(lib.pyksm_nr_task_points())
)

_INDEX = {name: index for index, name in enumerate(NAMES)}


def index_of(name: str) -> int:
    """The core's number of a point; KeyError where there is none of that name."""
    return _INDEX[name]
