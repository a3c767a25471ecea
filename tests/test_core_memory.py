"""Host memory that the core takes for what it models: sizes of records, bytes a slot."""

from __future__ import annotations

import pytest

from pyksm.core import object_size
from pyksm.errors import MachineError


def test_records_are_as_small_as_promised() -> None:
    assert object_size("page") == 64
    assert object_size("pte") == 8
    assert object_size("page_table") == 512 * 8
    assert object_size("rmap_item") <= 64
    assert object_size("stable_node") <= 64
    assert object_size("slot") <= 2
    for name in ("mm", "vma", "anon_vma", "anon_vma_chain", "swap_entry"):
        assert object_size(name) > 0


@pytest.mark.parametrize("name", ["", "pages", "page\0", "é"])
def test_size_of_what_there_is_not(name: str) -> None:
    with pytest.raises(MachineError):
        object_size(name)
