"""Make kernel_features.h from pyksm/features.py: what differs between kernels, for the C core.

Run by the build: ``gen_features.py pyksm/features.py kernel_features.h``. The table is
loaded from its file, because the package itself cannot be imported before it is built.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def constant(name: str) -> str:
    return "FEAT_" + name.replace("-", "_").upper()


def mask(names: frozenset[str], order: tuple[str, ...]) -> str:
    """The words of a set, low one first."""
    number = sum(1 << order.index(name) for name in names)
    return f"0x{number & (1 << 64) - 1:x}u, 0x{number >> 64:x}u"


def header(features: ModuleType) -> str:
    order = features.NAMES
    if len(order) > 128:
        raise SystemExit("features.py: more than 128 features do not fit two words of 64 bits")
    lines = [
        "/* SPDX-License-Identifier: MIT */",
        "/* Made from pyksm/features.py by gen_features.py: change that file. */",
        "#ifndef PYKSM_KERNEL_FEATURES_H",
        "#define PYKSM_KERNEL_FEATURES_H",
        "",
        "enum feature {",
    ]
    for each in features.FEATURES:
        since = f"{each.since}{f' to {each.until}' if each.until else ''}"
        commits = ", ".join(each.commits) or "not traced"
        lines += [f"\t{constant(each.name)}, /* {since}, {commits} */"]
    lines += [
        "\tNR_FEATURES",
        "};",
        "",
        "/* X(name, features it has no meaning without: two words) */",
    ]
    lines += ["#define PYKSM_FEATURES(X) \\"]
    lines += [
        f'\tX("{each.name}", {mask(frozenset(each.needs), order)}) \\' for each in features.FEATURES
    ]
    lines += ["\t/* end */", "", "/* X(name of a profile or an alias, its features: two words) */"]
    lines += [f'#define PYKSM_DEFAULT_PROFILE "{features.DEFAULT}"', "#define PYKSM_PROFILES(X) \\"]
    for profile in features.PROFILES.values():
        for name in (profile.name, *profile.aliases):
            lines += [f'\tX("{name}", {mask(profile.features, order)}) \\']
    lines += ["\t/* end */", "", "#endif", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(header(load(Path(sys.argv[1]))), encoding="utf-8")
