"""The main job: real memory into a machine, merged, pushed out, swapped off, and reported."""

from __future__ import annotations
