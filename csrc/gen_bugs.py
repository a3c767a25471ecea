"""Make kernel_bugs.h from pyksm/bugs.py: the museum's switches, for the C core.

Run by the build: ``gen_bugs.py pyksm/bugs.py kernel_bugs.h``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

from gen_features import load

WORDS = 2


def constant(name: str) -> str:
    return "BUG_" + re.sub(r"\W", "_", name).upper()


def header(bugs: ModuleType) -> str:
    if len(bugs.NAMES) > 64 * WORDS:
        raise SystemExit(f"bugs.py: more than {64 * WORDS} bugs do not fit {WORDS} words of 64")
    lines = [
        "/* SPDX-License-Identifier: MIT */",
        "/* Made from pyksm/bugs.py by gen_bugs.py: change that file. */",
        "#ifndef PYKSM_KERNEL_BUGS_H",
        "#define PYKSM_KERNEL_BUGS_H",
        "",
        "enum bug {",
    ]
    for each in (*bugs.BUGS, *bugs.CHECKS):
        commits = ", ".join(each.commits) or "not traced"
        lines += [f"\t{constant(each.name)}, /* {each.introduced} to {each.fixed}, {commits} */"]
    lines += ["\tNR_BUGS", "};", "", "/* X(name) */", "#define PYKSM_BUGS(X) \\"]
    lines += [f'\tX("{name}") \\' for name in bugs.NAMES]
    lines += ["\t/* end */", "", "#endif", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(header(load(Path(sys.argv[1]))), encoding="utf-8")
