"""Make the C text of the extension ``pyksm._core`` from the public header.

Run by the build: ``_build_cffi.py pyksm.h _core.c``. Not part of the installed package.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from cffi import FFI

#: Called by the C core through a pointer; pyksm.core fills it in with ``ffi.def_extern``.
HOOK = 'extern "Python" void pyksm_py_hook(void *arg, int point);'


def declarations(header: str) -> str:
    """The part of the header that is declared to cffi, without the export macro."""
    found = re.search(r"/\* CDEF-BEGIN.*?\*/(.*)/\* CDEF-END", header, re.DOTALL)
    if found is None:
        raise SystemExit("pyksm.h: no text between CDEF-BEGIN and CDEF-END")
    return found[1].replace("PYKSM_API ", "")


def make(header: Path, output: Path) -> None:
    ffi = FFI()
    ffi.cdef(declarations(header.read_text(encoding="utf-8")))
    ffi.cdef(HOOK)
    ffi.set_source("pyksm._core", '#include "pyksm.h"', py_limited_api=True)
    ffi.emit_c_code(str(output))


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
