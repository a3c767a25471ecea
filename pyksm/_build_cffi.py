"""Make the C text of an extension from the public headers.

Run by the build: ``_build_cffi.py _core.c pyksm.h [pyksm_tasks.h]``. Not installed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from cffi import FFI

#: Called by the C core through a pointer; pyksm.core fills it in with ``ffi.def_extern``.
HOOK = 'extern "Python" void pyksm_py_hook(void *arg, int point);'


def declarations(header: str) -> str:
    """The part of a header that is declared to cffi, without the export macro."""
    found = re.search(r"/\* CDEF-BEGIN.*?\*/(.*)/\* CDEF-END", header, re.DOTALL)
    if found is None:
        raise SystemExit("header: no text between CDEF-BEGIN and CDEF-END")
    return found[1].replace("PYKSM_API ", "")


def make(output: Path, *headers: Path) -> None:
    ffi = FFI()
    for header in headers:
        ffi.cdef(declarations(header.read_text(encoding="utf-8")))
    ffi.cdef(HOOK)
    include = "".join(f'#include "{header.name}"\n' for header in headers)
    ffi.set_source(f"pyksm.{output.stem}", include, py_limited_api=True)
    ffi.emit_c_code(str(output))


if __name__ == "__main__":
    make(*map(Path, sys.argv[1:]))
