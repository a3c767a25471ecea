"""The table of mutants fits the C text as it is. tests/mutants/run.py does the killing."""

from __future__ import annotations

from pathlib import Path

from mutant import apply
from table import MUTANTS

ROOT = Path(__file__).parent.parent


def test_every_mutant_applies() -> None:
    for mutant in MUTANTS:
        text = (ROOT / "csrc" / mutant.file).read_text(encoding="utf-8")
        assert apply(mutant, text) != text


def test_every_file_of_the_core_has_one() -> None:
    assert len(MUTANTS) >= 25
    files = {path.name for path in (ROOT / "csrc").glob("*.c")}
    # limits.c measures the host: no machine takes part, and the driver has nothing to compare.
    assert {mutant.file for mutant in MUTANTS} == files - {"limits.c"}


def test_no_mutant_is_there_twice() -> None:
    assert len({(mutant.file, mutant.new, mutant.why) for mutant in MUTANTS}) == len(MUTANTS)
