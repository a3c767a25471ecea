"""Array types that the Python face shares between engines."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: Anything contiguous with bytes in it.
Buffer: TypeAlias = "bytes | bytearray | memoryview | NDArray[Any]"

#: One page of a process, ``struct pyksm_page`` of pyksm.h byte for byte: ``pte`` (raw x86-64 pte),
#: ``pfn``, ``swp_type``, ``node``, ``swp_offset`` and ``mapcount`` (-1 where the field does not
#: apply), ``state`` (``b'.'``, ``b'P'``, ``b'Z'``, ``b'S'`` or ``b'-'``), ``ksm``, ``swapcache``,
#: ``mlocked``.
PAGE_DTYPE = np.dtype(
    {
        "names": [
            "pte",
            "pfn",
            "swp_type",
            "node",
            "swp_offset",
            "mapcount",
            "state",
            "ksm",
            "swapcache",
            "mlocked",
        ],
        "formats": ["<u8", "<i8", "<i4", "<i4", "<i8", "<i8", "S1", "?", "?", "?"],
        "offsets": [0, 8, 16, 20, 24, 32, 40, 41, 42, 43],
        "itemsize": 48,
    }
)
