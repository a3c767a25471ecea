"""pyksm: an executable reference model of Linux KSM, anonymous rmap, swap and swapoff.

``Machine`` is the way in::

    with Machine() as m:
        region = m.spawn().mmap(16)
        region[:] = b"the same in every page"
        region.madvise(MADV_MERGEABLE)
        m.ksm.scan(2)
        print(m.ksm.pages_shared, m.ksm.pages_sharing)

Names are looked up when they are first used, so that importing the package costs little.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyksm.arrays import PAGE_DTYPE as PAGE_DTYPE
    from pyksm.engine import FAULT_KINDS as FAULT_KINDS
    from pyksm.engine import MADV_DONTNEED as MADV_DONTNEED
    from pyksm.engine import MADV_MERGEABLE as MADV_MERGEABLE
    from pyksm.engine import MADV_PAGEOUT as MADV_PAGEOUT
    from pyksm.engine import MADV_UNMERGEABLE as MADV_UNMERGEABLE
    from pyksm.engine import MADV_WILLNEED as MADV_WILLNEED
    from pyksm.engine import POLICIES as POLICIES
    from pyksm.engine import PROT_NONE as PROT_NONE
    from pyksm.engine import PROT_READ as PROT_READ
    from pyksm.engine import PROT_WRITE as PROT_WRITE
    from pyksm.engine import SCHEDULE_POINTS as SCHEDULE_POINTS
    from pyksm.engine import SWITCHES as SWITCHES
    from pyksm.engine import AreaInfo as AreaInfo
    from pyksm.engine import Config as Config
    from pyksm.engine import Engine as Engine
    from pyksm.engine import PageInfo as PageInfo
    from pyksm.engine import VmaInfo as VmaInfo
    from pyksm.errors import InputError as InputError
    from pyksm.errors import MachineError as MachineError
    from pyksm.errors import PyksmError as PyksmError
    from pyksm.features import FEATURES as FEATURES
    from pyksm.features import PROFILES as PROFILES
    from pyksm.features import Feature as Feature
    from pyksm.features import Profile as Profile
    from pyksm.machine import Area as Area
    from pyksm.machine import Ksm as Ksm
    from pyksm.machine import Machine as Machine
    from pyksm.machine import Process as Process
    from pyksm.machine import Region as Region
    from pyksm.machine import Swap as Swap

_WHERE = {
    "pyksm.arrays": ("PAGE_DTYPE",),
    "pyksm.engine": (
        "FAULT_KINDS",
        "MADV_DONTNEED",
        "MADV_MERGEABLE",
        "MADV_PAGEOUT",
        "MADV_UNMERGEABLE",
        "MADV_WILLNEED",
        "POLICIES",
        "PROT_NONE",
        "PROT_READ",
        "PROT_WRITE",
        "SCHEDULE_POINTS",
        "SWITCHES",
        "AreaInfo",
        "Config",
        "Engine",
        "PageInfo",
        "VmaInfo",
    ),
    "pyksm.errors": ("InputError", "MachineError", "PyksmError"),
    "pyksm.features": ("FEATURES", "PROFILES", "Feature", "Profile"),
    "pyksm.machine": ("Area", "Ksm", "Machine", "Process", "Region", "Swap"),
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}

__all__ = ["__version__", *_MODULE]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _MODULE:
        value = getattr(import_module(_MODULE[name]), name)
    else:
        raise AttributeError(f"module 'pyksm' has no attribute {name!r}")
    globals()[name] = value
    return value


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pyksm")
    except PackageNotFoundError:  # the tree itself, see tests/dev_build.sh
        from pyksm.core import version as built

        return built()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def include_dir() -> str:
    """Directory of ``pyksm.h``, for C code built beside the package."""
    from pathlib import Path

    package = Path(__file__).resolve().parent
    installed = package / "include"
    return str(installed if installed.is_dir() else package.parent / "csrc" / "include")
