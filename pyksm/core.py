"""The C engine: :class:`Core` answers the engine interface with the compiled core.

Arguments that do not fit the C types are not truncated: they are clamped to a value that the core
refuses with the errno that the address or number itself deserves, so a wild integer gives a
:class:`~pyksm.errors.MachineError` like any other bad argument, and what is not an integer at all
a ``TypeError``. Calls on one machine are serialised by a lock that a hook's own calls pass;
machines share nothing.
"""

from __future__ import annotations

import errno
import importlib
import operator
import os
import struct
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from pyksm.arrays import PAGE_DTYPE, Buffer
from pyksm.bugs import NAMES as BUGS
from pyksm.engine import (
    FAULT_KINDS,
    POLICIES,
    TRANSFERS,
    WALKS,
    AreaInfo,
    Config,
    PageInfo,
    VmaInfo,
)
from pyksm.errors import InputError, MachineError

#: The build of the core that this is about; :mod:`pyksm.tasks.core` loads this file for another.
_BUILD: str = globals().get("_BUILD", "pyksm._core")
if TYPE_CHECKING:
    from pyksm._core import ffi, lib
else:
    ffi, lib = (getattr(importlib.import_module(_BUILD), name) for name in ("ffi", "lib"))

__all__ = ["PAGE_DTYPE", "Core", "mkswap", "object_size", "simd", "version"]

#: Most bytes of argument or result arrays in one call; more is ENOMEM before it is tried.
_BULK_MAX = 1 << 32

#: Pages below 2^47, where user addresses end.
_USER_PAGES = 1 << 35

#: Stands for a buffer of no bytes.
_NO_BYTES = ffi.new("char[1]")

_I32_MAX = 2**31 - 1
_U32_MAX = 2**32 - 1
_I64_MAX = 2**63 - 1
_U64_MAX = 2**64 - 1

#: What C leaves alone in a per-page status array where a call is refused as a whole.
_UNTOUCHED = 1


def _names(count: int, name: Callable[[int], Any]) -> tuple[str, ...]:
    return tuple(ffi.string(name(index)).decode("ascii") for index in range(count))


_COUNTERS = _names(lib.pyksm_nr_counters(), lib.pyksm_counter_name)
_VMSTAT = _names(lib.pyksm_nr_vmstat(), lib.pyksm_vmstat_name)
#: vmstat items that not every kernel has, with the feature that brings them.
_VMSTAT_SINCE = {
    "ksm_swpin_copy": "ksm-event-counts",
    "cow_ksm": "ksm-event-counts",
    "swpin_zero": "swap-zeromap",
    "swpout_zero": "swap-zeromap",
}
_POINTS = _names(lib.pyksm_nr_points(), lib.pyksm_point_name)
_SWITCHES = _names(lib.PYKSM_NR_SWITCHES, lib.pyksm_switch_name)
#: Only the build with tasks has the museum's bugs.
_BUGS = BUGS if _BUILD == "pyksm._tasks" else ()
_FEATURES = _names(lib.pyksm_nr_features(), lib.pyksm_feature_name)
_KSM_STAT = (
    "ksm_rmap_items",
    "ksm_zero_pages",
    "ksm_merging_pages",
    "ksm_process_profit",
    "ksm_merge_any",
    "ksm_mergeable",
)


def _clamp(value: SupportsIndex, low: int, high: int) -> int:
    number = operator.index(value)
    return low if number < low else high if number > high else number


def _i32(value: SupportsIndex) -> int:
    return _clamp(value, -_I32_MAX - 1, _I32_MAX)


def _id(value: SupportsIndex) -> int:
    """A pid or area type; -1, which nothing has, for what C's int cannot hold."""
    number = operator.index(value)
    return number if 0 <= number <= _I32_MAX else -1


def _count(value: SupportsIndex) -> int:
    """A number of pages: none for a negative one, which every range operation refuses (EINVAL)."""
    return _clamp(value, 0, _U64_MAX)


def _addr(value: SupportsIndex) -> int:
    """An address. A negative one is misaligned; one beyond 64 bits stays beyond user space."""
    number = operator.index(value)
    if number < 0:
        return _U64_MAX
    return number if number <= _U64_MAX else 2**63 | (number & 4095)


def _u32(value: SupportsIndex, what: str) -> int:
    number = operator.index(value)
    if not 0 <= number <= _U32_MAX:
        raise MachineError(errno.EINVAL, f"{what} {number}")
    return number


def _text(value: str, what: str) -> bytes:
    """A name for C; one that C cannot hold is a name that nothing has."""
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")
    encoded = value.encode("utf-8", "surrogatepass")
    return encoded if b"\0" not in encoded else b""


def _path(path: str | os.PathLike[str], what: str) -> bytes:
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise MachineError(errno.EINVAL, what)
    return encoded


def _positive(status: NDArray[np.int32], ret: int) -> list[int]:
    """Positive errno values of the pages: the common case, no failure at all, is a short cut."""
    if ret >= 0:
        return [0] * len(status)
    errors: list[int] = np.negative(status).tolist()
    return errors


def _node(value: SupportsIndex) -> int:
    """A node; for what C's int cannot hold, one that no machine has."""
    return _clamp(value, -2, 1 << 30)


def _bool(value: object) -> int:
    return int(bool(value))


class _Op:
    """A call of C, and how its arguments are made to fit where they do not fit as they are."""

    __slots__ = ("fit", "function", "what")

    def __init__(self, what: str, function: Callable[..., int], *fit: Callable[[Any], int]) -> None:
        self.what = what
        self.function = function
        self.fit = fit


_SPAWN = _Op("spawn", lib.pyksm_spawn)
_FORK = _Op("fork", lib.pyksm_fork, _id)
_EXIT = _Op("exit", lib.pyksm_exit, _id)
_MMAP = _Op("mmap", lib.pyksm_mmap, _id, _addr, _count, _node)
_MUNMAP = _Op("munmap", lib.pyksm_munmap, _id, _addr, _count)
_MPROTECT = _Op("mprotect", lib.pyksm_mprotect, _id, _addr, _count, _i32)
_MLOCK = _Op("mlock", lib.pyksm_mlock, _id, _addr, _count)
_MUNLOCK = _Op("munlock", lib.pyksm_munlock, _id, _addr, _count)
_MREMAP = _Op("mremap", lib.pyksm_mremap, _id, _addr, _count, _addr)
_MADVISE = _Op("madvise", lib.pyksm_madvise, _id, _addr, _count, _i32)
_CLEAR_REFS = _Op("clear_refs", lib.pyksm_clear_refs, _id, _i32)
_PIN = _Op("pin", lib.pyksm_pin, _id, _addr, _count)
_PIN_USER_PAGES = _Op("pin", lib.pyksm_pin_user_pages, _id, _addr, _count)
_UNPIN = _Op("unpin", lib.pyksm_unpin, _id, _addr, _count)
_TOUCH = _Op("touch", lib.pyksm_touch, _id, _addr, _count, _bool)
_SWAPOFF = _Op("swapoff", lib.pyksm_swapoff, _id)
_RMAP_WALK = _Op("rmap_walk", lib.pyksm_rmap_walk, _id, _addr)
_SWAP_COUNT = _Op("swap_count", lib.pyksm_swap_count, _id, _addr)
_SWAP_MAP = _Op("swap_map", lib.pyksm_swap_map, _id, _addr)
_SWAPCACHED = _Op("swapcached", lib.pyksm_swapcached)
_PRCTL = _Op("prctl", lib.pyksm_prctl_memory_merge, _id, _bool)
_MEMORY_MERGE = _Op("prctl", lib.pyksm_memory_merge, _id)
_SCAN = _Op("scan", lib.pyksm_ksm_scan, lambda value: _u32(value, "scans"))
_DO_SCAN = _Op("ksm_do_scan", lib.pyksm_ksm_do_scan, lambda value: _u32(value, "pages to scan"))
_SLEEP = _Op("sleep", lib.pyksm_sleep, lambda value: _clamp(value, -1, _I32_MAX + 1))
_INJECT = _Op("inject", lib.pyksm_inject, _i32, _count)
_FREE_FRAMES = _Op("free_frames", lib.pyksm_free_frames, _node)
_PEAK_FRAMES = _Op("peak_frames", lib.pyksm_peak_frames, _bool)


#: Names of files of ksm that there are, as C takes them.
_KEYS: dict[str, bytes] = {}

#: struct pyksm_page.
_PAGE_RECORD = struct.Struct("<Qqiiqqc???4x")
_STATES = {state.encode("ascii"): state for state in ".PZS-"}


def _page_info(record: tuple[Any, ...]) -> PageInfo:
    """A PageInfo without its own way to be made, which takes thrice as long as all the rest."""
    info = object.__new__(PageInfo)
    to = info.__dict__
    (
        to["pte"],
        to["pfn"],
        to["swp_type"],
        to["node"],
        to["swp_offset"],
        to["mapcount"],
        state,
        to["ksm"],
        to["swapcache"],
        to["mlocked"],
    ) = record
    to["state"] = _STATES[state]
    return info


class _Holder:
    """A destructor that does nothing but hold a machine until it is called."""

    def __init__(self, machine: Any) -> None:
        self._machine = machine

    def __call__(self, cdata: Any) -> None:
        self._machine = None


def version() -> str:
    """Version of the compiled core."""
    return ffi.string(lib.pyksm_version()).decode("ascii")


def object_size(name: str) -> int:
    """Bytes of host memory that one "page", "pte", "slot", "rmap_item" ... takes; see pyksm.h."""
    size = int(lib.pyksm_object_size(_text(name, "name")))
    if size < 0:
        raise MachineError(errno.EINVAL, f"object_size {name!r}")
    return size


def simd(want: str | None = None) -> str:
    """How the core searches arrays and makes checksums, for all machines of the process.

    No result differs. ``want``: "portable", "avx2", "avx512", or "auto", the best that the host
    has, and what a process begins with unless the environment variable ``PYKSM_SIMD`` says
    otherwise. None only asks.

    :returns: the name of what is in use now.
    :raises InputError: this host does not have it.
    """
    name = lib.pyksm_simd(ffi.NULL if want is None else _text(want, "simd"))
    if name == ffi.NULL:
        raise InputError(f"simd {want!r}: expected one of {', '.join(_simd_names())}")
    return ffi.string(name).decode("ascii")


def _simd_names() -> list[str]:
    """What :func:`simd` takes here."""
    before = lib.pyksm_simd(ffi.NULL)
    best = ffi.string(lib.pyksm_simd(b"auto")).decode("ascii")
    lib.pyksm_simd(before)
    return list(dict.fromkeys(("auto", "portable", best)))


if os.environ.get("PYKSM_SIMD"):
    simd(os.environ["PYKSM_SIMD"])


def mkswap(path: str | os.PathLike[str], npages: int, page_size: int = 4096) -> None:
    """Write a swap file of ``npages`` slots, its header included, in mkswap(8)'s format."""
    encoded = _path(path, "mkswap")
    ret = lib.pyksm_mkswap(encoded, _count(npages), _u32(page_size, "page size"))
    if ret < 0:
        raise MachineError(-ret, f"mkswap {os.fspath(path)}")


def _c_config(config: Config) -> Any:
    """``struct pyksm_config`` of a Config; InputError for names that the core does not know."""
    features = config.features
    if config.policy not in POLICIES:
        raise InputError(f"policy {config.policy!r}: expected one of {', '.join(POLICIES)}")
    for what, name, known in (
        ("walk", config.walk, WALKS),
        ("transfer", config.transfer, TRANSFERS),
    ):
        if name not in known:
            raise InputError(f"{what} {name!r}: expected one of {', '.join(known)}")
    switches = 0
    for name in config.switches:
        if name not in _SWITCHES:
            raise InputError(f"switch {name!r}: expected one of {', '.join(_SWITCHES)}")
        switches |= 1 << _SWITCHES.index(name)
    unknown = sorted(config.bugs - set(_BUGS))
    if unknown:
        have = ", ".join(_BUGS) or "none: it is the build without tasks"
        raise InputError(f"bug {unknown[0]!r}: expected one of those that this core has ({have})")
    numbers = {
        what: operator.index(value)
        for what, value in (
            ("nodes", config.nodes),
            ("frames", config.frames),
            ("page_size", config.page_size),
            ("agent_pages", config.agent_pages),
            ("threads", config.threads),
        )
    }
    for what, number in numbers.items():
        # 0 asks C for its default; here a default is what one does not say.
        least = 0 if what == "agent_pages" else 1
        if not least <= number <= (_U64_MAX if what == "frames" else _U32_MAX):
            raise MachineError(errno.EINVAL, f"{what}={number}")
    ret = ffi.new("struct pyksm_config *", numbers)
    ret.policy = POLICIES.index(config.policy)
    ret.switches = switches
    ret.walk = WALKS.index(config.walk)
    ret.transfer = TRANSFERS.index(config.transfer)
    ret.exact_features = 1
    for name in features:
        index = _FEATURES.index(name)
        ret.features.word[index // 64] |= 1 << index % 64
    for name in config.bugs:
        index = _BUGS.index(name)
        ret.bugs.word[index // 64] |= 1 << index % 64
    return ret


def _lost(exception: Any, value: BaseException, traceback: Any) -> None:
    """An exception that cffi saw before our own ``try`` did, such as Ctrl-C on entry."""
    core = ffi.from_handle(traceback.tb_frame.f_locals["arg"])()
    if core is not None and core._error is None:
        core._error = value


@ffi.def_extern(onerror=_lost)
def pyksm_py_hook(arg: Any, point: int) -> None:
    core: Core | None = ffi.from_handle(arg)()
    # After an exception the operation runs to its end undisturbed, then raises it.
    if core is None or core._hook is None or core._error is not None:
        return
    try:
        core._hook(_POINTS[point])
    except BaseException as error:
        core._error = error


class Core:
    """One machine of the C core. See :class:`pyksm.engine.Engine` for the operations.

    Beyond the interface: :meth:`frame` and :meth:`pte_table` give numpy views without a copy,
    :meth:`pagemap_array` and :meth:`read_pages_into` the bulk forms. Views are read-only, show the
    machine as it is at the moment they are looked at, and stay valid after :meth:`close`.
    """

    name = "core"

    def __init__(self, config: Config | None = None) -> None:
        self._handle: Any = None  # first: __repr__ and close() look at it
        self._frames: NDArray[np.uint8] | None = None
        self.config = Config() if config is None else config
        c_config = _c_config(self.config)
        self._page_size = int(c_config.page_size)
        self._vmstat_of = {None, *self.config.features}
        self._lock = threading.RLock()
        self._depth = 0
        self._hook: Callable[[str], None] | None = None
        self._error: BaseException | None = None
        # What calls for one page, or a page or less of bytes, answer in; used under the lock only.
        self._status = ffi.new("int32_t[1]")
        self._bytes = ffi.new("char[]", 4096)
        self._number = ffi.new("int64_t *")
        self._record = ffi.new("struct pyksm_page[1]")
        self._record_bytes = memoryview(ffi.buffer(self._record))
        # A weak reference: the machine must not keep its own Python object alive.
        self._self = ffi.new_handle(weakref.ref(self))
        err = ffi.new("int *")
        machine = lib.pyksm_new(c_config, err)
        if machine == ffi.NULL:
            raise MachineError(-err[0], "new machine")
        self._handle = ffi.gc(machine, lib.pyksm_free)

    def __repr__(self) -> str:
        return f"<Core {self.config}{'' if self._handle is not None else ' closed'}>"

    def close(self) -> None:
        """Free the machine, or leave that to the last view of it. EBUSY inside a hook."""
        with self._lock:
            if self._depth:
                raise MachineError(errno.EBUSY, "close inside a hook")
            self._handle = self._frames = None

    def _open(self, what: str) -> Any:
        """The machine, for calls that look at it and come by no schedule point; under the lock."""
        if self._handle is None:
            raise MachineError(errno.EBADF, f"{what}: machine is closed")
        return self._handle

    def _raw(self, what: str, function: Callable[..., Any], *args: Any) -> Any:
        """Call C; raise what a hook raised meanwhile; leave C's own answer to the caller."""
        with self._lock:
            handle = self._open(what)
            self._depth += 1
            try:
                ret = function(handle, *args)
            finally:
                self._depth -= 1
            error = self._error
            if error is not None:
                self._error = None
                raise error
            return ret

    def _call(self, what: str, function: Callable[..., int], *args: Any) -> int:
        ret: int = self._raw(what, function, *args)
        if ret < 0:
            raise MachineError(-ret, what)
        return ret

    def _do(self, op: _Op, *args: Any) -> int:
        """Call C. Integers that fit, which nearly all do, and no hook to look after: at once."""
        for arg in args:
            if type(arg) is not int:
                break
        else:
            with self._lock:
                if self._hook is None and self._handle is not None:
                    try:
                        ret = op.function(self._handle, *args)
                    except OverflowError:
                        pass  # cffi's, of an argument: made to fit below
                    else:
                        if ret >= 0:
                            return ret
                        raise MachineError(-ret, op.what)
        fitting = [fit(arg) for fit, arg in zip(op.fit, args, strict=True)]
        return self._call(op.what, op.function, *fitting)

    def _at_once(self, function: Callable[..., int], *args: Any) -> int | None:
        """What C answers; under the lock. None: there is a hook to look after, or an argument is to
        be made to fit, and nothing is done yet."""
        if self._hook is not None or self._handle is None:
            return None
        try:
            return function(self._handle, *args)
        except OverflowError:
            return None

    def _page(self, what: str, function: Callable[..., int], *args: Any) -> list[int] | None:
        """A call for one page, the error its result; otherwise as :meth:`_at_once`."""
        if self._hook is not None or self._handle is None:
            return None
        try:
            ret = function(self._handle, *args, self._status)
        except OverflowError:
            return None
        if ret >= 0:
            return [0]
        code = self._status[0]  # 0 unless the page was tried
        self._status[0] = 0
        if code:
            return [-code]
        raise MachineError(-ret, what)

    # processes

    def spawn(self) -> int:
        return self._do(_SPAWN)

    def fork(self, pid: int) -> int:
        return self._do(_FORK, pid)

    def exit(self, pid: int) -> None:
        self._do(_EXIT, pid)

    def processes(self) -> list[int]:
        with self._lock:
            machine, at = self._open("processes"), lib.pyksm_process_at
            return [at(machine, k) for k in range(lib.pyksm_process_count(machine))]

    # address space

    def mmap(self, pid: int, npages: int, addr: int = 0, node: int = -1) -> int:
        return self._do(_MMAP, pid, addr, npages, node)

    def munmap(self, pid: int, addr: int, npages: int) -> None:
        self._do(_MUNMAP, pid, addr, npages)

    def mprotect(self, pid: int, addr: int, npages: int, prot: int) -> None:
        self._do(_MPROTECT, pid, addr, npages, prot)

    def mlock(self, pid: int, addr: int, npages: int) -> None:
        self._do(_MLOCK, pid, addr, npages)

    def munlock(self, pid: int, addr: int, npages: int) -> None:
        self._do(_MUNLOCK, pid, addr, npages)

    def mremap(self, pid: int, addr: int, npages: int, new_addr: int) -> None:
        self._do(_MREMAP, pid, addr, npages, new_addr)

    def madvise(self, pid: int, addr: int, npages: int, advice: int) -> None:
        self._do(_MADVISE, pid, addr, npages, advice)

    def _bulk(self, what: str, pid: int, npages: int, each: int, most: int = _USER_PAGES) -> None:
        """Refuse, before arrays for them are made, more pages than there can be arrays for."""
        if npages * each <= _BULK_MAX:
            return
        if operator.index(pid) not in self.processes():
            raise MachineError(errno.ESRCH, what)
        beyond = npages > most
        raise MachineError(errno.EINVAL if beyond else errno.ENOMEM, f"{what} of {npages} pages")

    def _each(self, what: str, function: Callable[..., int], *args: Any, npages: int) -> list[int]:
        """A call that tries every page: its errors are results, a refused call raises."""
        self._bulk(what, args[0], npages, 16)
        status = np.empty(npages, dtype=np.int32)
        status[:1] = _UNTOUCHED
        ret = self._raw(what, function, *args, ffi.from_buffer("int32_t[]", status))
        if ret < 0 and (npages == 0 or status[0] == _UNTOUCHED):
            raise MachineError(-ret, what)
        return _positive(status, ret)

    def write_pages(self, pid: int, addr: int, data: Buffer) -> list[int]:
        """Write whole pages from any contiguous buffer, without a copy of it on the way.

        :returns: a 0 or errno (positive) for each page.
        """
        if type(data) is bytes and len(data) == self._page_size and type(pid) is type(addr) is int:
            with self._lock:
                one = self._page("write_pages", lib.pyksm_write_pages, pid, addr, 1, data)
                if one is not None:
                    return one
        source = ffi.from_buffer("char[]", data)
        npages, rest = divmod(len(source), self._page_size)
        if rest:
            raise MachineError(errno.EINVAL, "write_pages: not whole pages")
        return self._each(
            "write_pages",
            lib.pyksm_write_pages,
            _id(pid),
            _addr(addr),
            npages,
            source,
            npages=npages,
        )

    def read_pages(self, pid: int, addr: int, npages: int) -> tuple[bytes, list[int]]:
        if type(pid) is type(addr) is type(npages) is int and npages == 1:
            with self._lock:
                one = self._page("read_pages", lib.pyksm_read_pages, pid, addr, 1, self._bytes)
                if one is not None:
                    size = self._page_size
                    return bytes(size) if one[0] else ffi.unpack(self._bytes, size), one
        pages = _count(npages)
        self._bulk("read_pages", pid, pages, max(self._page_size, 16))
        out = np.zeros(pages * self._page_size, dtype=np.uint8)
        errors = self.read_pages_into(pid, addr, out)
        return out.tobytes(), errors

    def read_pages_into(self, pid: int, addr: int, out: Buffer) -> list[int]:
        """Read as many whole pages as the writable buffer ``out`` holds, straight into it.

        Bytes of pages that cannot be read are left as they are.

        :returns: a 0 or errno (positive) for each page.
        """
        target = ffi.from_buffer("char[]", out, True)
        if len(target) == self._page_size and type(pid) is type(addr) is int:
            with self._lock:
                one = self._page("read_pages", lib.pyksm_read_pages, pid, addr, 1, target)
                if one is not None:
                    return one
        npages, rest = divmod(len(target), self._page_size)
        if rest:
            raise MachineError(errno.EINVAL, "read_pages: not whole pages")
        return self._each(
            "read_pages", lib.pyksm_read_pages, _id(pid), _addr(addr), npages, target, npages=npages
        )

    def write(self, pid: int, addr: int, data: Buffer) -> None:
        source = data if type(data) is bytes else ffi.from_buffer("char[]", data)
        size = len(source)
        if not size:
            source = _NO_BYTES  # not NULL, which C refuses
        if type(pid) is int and type(addr) is int:
            with self._lock:
                ret = self._at_once(lib.pyksm_write, pid, addr, source, size)
            if ret is not None:
                if ret >= 0:
                    return
                raise MachineError(-ret, "write")
        self._call("write", lib.pyksm_write, _id(pid), _addr(addr), source, size)

    def read(self, pid: int, addr: int, length: int) -> bytes:
        if type(pid) is type(addr) is type(length) is int and 0 <= length <= 4096:
            with self._lock:
                ret = self._at_once(lib.pyksm_read, pid, addr, self._bytes, length)
                if ret is not None:
                    if ret >= 0:
                        return ffi.unpack(self._bytes, length)
                    raise MachineError(-ret, "read")
        size = operator.index(length)
        if size < 0:
            raise MachineError(errno.EINVAL, f"read: length {size}")
        self._bulk("read", pid, size, 1, _USER_PAGES << 12)
        out = np.zeros(size, dtype=np.uint8)
        target = ffi.from_buffer("char[]", out) if size else _NO_BYTES
        self._call("read", lib.pyksm_read, _id(pid), _addr(addr), target, size)
        return out.tobytes()

    def touch(self, pid: int, addr: int, npages: int, write: bool = False) -> list[int]:
        if type(pid) is type(addr) is type(npages) is int and npages == 1:
            with self._lock:
                one = self._page("touch", lib.pyksm_touch, pid, addr, 1, 1 if write else 0)
                if one is not None:
                    return one
        pages = _count(npages)
        return self._each(
            "touch", lib.pyksm_touch, _id(pid), _addr(addr), pages, int(bool(write)), npages=pages
        )

    def pin(self, pid: int, addr: int, npages: int, write: bool = False) -> None:
        self._do(_PIN_USER_PAGES if write else _PIN, pid, addr, npages)

    def unpin(self, pid: int, addr: int, npages: int) -> None:
        self._do(_UNPIN, pid, addr, npages)

    def migrate(self, pid: int, addr: int, npages: int, node: int) -> list[int]:
        if type(pid) is type(addr) is type(npages) is type(node) is int and npages == 1:
            with self._lock:
                ret = self._at_once(lib.pyksm_migrate, pid, addr, 1, node, self._status)
                status, self._status[0] = self._status[0], 0
            if ret is not None:
                if ret >= 0:
                    return [status]
                raise MachineError(-ret, "migrate")
        pages = _count(npages)
        self._bulk("migrate", pid, pages, 16)
        every = np.zeros(pages, dtype=np.int32)
        out = ffi.from_buffer("int32_t[]", every)
        self._call("migrate", lib.pyksm_migrate, _id(pid), _addr(addr), pages, _node(node), out)
        answers: list[int] = every.tolist()
        return answers

    # swap

    def swapon(
        self, npages: int, priority: int = -1, path: str | os.PathLike[str] | None = None
    ) -> int:
        encoded = ffi.NULL if path is None else _path(path, "swapon")
        # 0 means all of a file, so a negative number is 1 to C, which no area can have.
        slots = _count(npages) if operator.index(npages) >= 0 else 1
        return self._call("swapon", lib.pyksm_swapon, slots, _i32(priority), encoded)

    def swapoff(self, type: int) -> None:
        self._do(_SWAPOFF, type)

    def _all(
        self, what: str, cdecl: str, function: Callable[..., int], *args: Any
    ) -> Iterator[Any]:
        """Every record that an ``_at`` function knows, by index; the first errno ends them."""
        index = 0
        record = ffi.new(cdecl)
        machine = self._open(what)
        while function(machine, *args, index, record) >= 0:
            yield record
            index += 1

    def areas(self) -> list[AreaInfo]:
        with self._lock:
            return [
                AreaInfo(a.type, a.priority, a.pages, a.used, a.max)
                for a in self._all("areas", "struct pyksm_area *", lib.pyksm_area_at)
            ]

    def rmap_walk(self, pid: int, addr: int) -> int:
        return self._do(_RMAP_WALK, pid, addr)

    def swap_count(self, type: int, offset: int) -> int:
        return self._do(_SWAP_COUNT, type, offset)

    def swap_map(self, type: int, offset: int) -> int:
        return self._do(_SWAP_MAP, type, offset)

    def swapcached(self) -> int:
        return self._do(_SWAPCACHED)

    def swapout(self, ranges: Sequence[tuple[int, int, int]] = ()) -> None:
        wanted = [(_id(pid), 0, _addr(addr), _count(npages)) for pid, addr, npages in ranges]
        array = ffi.new("struct pyksm_range[]", wanted) if wanted else ffi.NULL
        self._call("swapout", lib.pyksm_swapout, array, len(wanted))

    # KSM

    def ksm_write(self, key: str, value: int) -> None:
        name = _KEYS.get(key) or _text(key, "key")
        ret = None
        if type(value) is int:
            with self._lock:
                ret = self._at_once(lib.pyksm_ksm_write, name, value)
        if ret is None:
            number = _clamp(value, -_I64_MAX - 1, _I64_MAX)
            ret = self._raw(f"ksm {key}", lib.pyksm_ksm_write, name, number)
        if ret < 0:
            raise MachineError(-ret, f"ksm {key}={value}")

    def ksm_read(self, key: str) -> int:
        name = _KEYS.get(key) or _text(key, "key")
        with self._lock:
            ret = lib.pyksm_ksm_read(self._open("ksm"), name, self._number)
            if ret < 0:
                raise MachineError(-ret, f"ksm {key}")
            _KEYS[key] = name
            return int(self._number[0])

    def ksm_counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        with self._lock:
            machine, at = self._open("ksm"), lib.pyksm_ksm_count_name
            while (key := at(machine, len(counts))) != ffi.NULL:
                name = ffi.string(key).decode("ascii")
                counts[name] = self.ksm_read(name)
        return counts

    def ksm_stat(self, pid: int) -> dict[str, int]:
        ret = ffi.new("int64_t *")
        stat: dict[str, int] = {}
        for key in _KSM_STAT:
            what = f"ksm_stat of process {pid}"
            code = self._raw(what, lib.pyksm_ksm_stat, _id(pid), key.encode("ascii"), ret)
            if code == 0:
                stat[key] = int(ret[0])
            elif code != -errno.ENOENT:
                raise MachineError(-code, what)
        return stat

    def prctl_memory_merge(self, pid: int, on: bool) -> None:
        self._do(_PRCTL, pid, 1 if on else 0)

    def memory_merge(self, pid: int) -> bool:
        return bool(self._do(_MEMORY_MERGE, pid))

    def ksm_scan(self, n: int) -> int:
        return self._do(_SCAN, n)

    def ksm_do_scan(self, npages: int) -> None:
        self._do(_DO_SCAN, npages)

    # time and references

    def clear_refs(self, pid: int, what: int) -> None:
        self._do(_CLEAR_REFS, pid, what)

    def sleep(self, ms: int) -> None:
        self._do(_SLEEP, ms)

    # observation

    def pagemap_array(self, pid: int, addr: int, npages: int) -> NDArray[np.void]:
        """Pages observed without touching them: shape (npages,), dtype ``PAGE_DTYPE``."""
        pages = _count(npages)
        self._bulk("pagemap", pid, pages, PAGE_DTYPE.itemsize)
        out = np.empty(pages, dtype=PAGE_DTYPE)
        records = ffi.from_buffer("struct pyksm_page[]", out)
        self._call("pagemap", lib.pyksm_pagemap, _id(pid), _addr(addr), pages, records)
        return out

    def pagemap(self, pid: int, addr: int, npages: int) -> list[PageInfo]:
        if type(pid) is type(addr) is type(npages) is int and npages == 1:
            with self._lock:
                try:
                    ret = lib.pyksm_pagemap(self._open("pagemap"), pid, addr, 1, self._record)
                except OverflowError:
                    pass
                else:
                    if ret < 0:
                        raise MachineError(-ret, "pagemap")
                    return [_page_info(_PAGE_RECORD.unpack(self._record_bytes))]
        records: Any = self.pagemap_array(pid, addr, npages).data
        return list(map(_page_info, _PAGE_RECORD.iter_unpack(records.cast("B"))))

    def vmas(self, pid: int) -> list[VmaInfo]:
        with self._lock:
            if operator.index(pid) not in self.processes():
                raise MachineError(errno.ESRCH, "vmas")
            return [
                VmaInfo(
                    v.start,
                    v.end,
                    v.pgoff,
                    v.prot,
                    v.node,
                    bool(v.mergeable),
                    v.chain,
                    bool(v.locked),
                )
                for v in self._all("vmas", "struct pyksm_vma *", lib.pyksm_vma_at, _id(pid))
            ]

    def free_frames(self, node: int = -1) -> int:
        return self._do(_FREE_FRAMES, node)

    def peak_frames(self, reset: bool = False) -> int:
        return self._do(_PEAK_FRAMES, 1 if reset else 0)

    def _view(self, what: str, pointer: Any, dtype: Any, size: int) -> NDArray[Any]:
        """A read-only array over C memory whose owner holds the machine, so that it outlives us."""
        owner = ffi.gc(ffi.cast("char *", pointer), _Holder(self._handle))
        return np.frombuffer(memoryview(ffi.buffer(owner, size)).toreadonly(), dtype=dtype)

    def frame(self, pfn: int) -> NDArray[np.uint8]:
        """Content of a frame: a read-only view, shape (page_size,). EINVAL: no such frame.

        With ``transfer="reference"`` it is a view of where the content is now: once somebody
        writes to the page, that may be elsewhere, and then ask again.
        """
        frames = self._frames
        if frames is not None and type(pfn) is int and 0 <= pfn < len(frames):
            row: NDArray[np.uint8] = frames[pfn]
            return row
        with self._lock:
            pointer = lib.pyksm_frame(self._open("frame"), _clamp(pfn, -1, _I64_MAX))
            if pointer == ffi.NULL:
                raise MachineError(errno.EINVAL, f"frame {pfn}")
            if self.config.transfer == "copy":
                self._frames = self._all_frames()
            return self._view("frame", pointer, np.uint8, self._page_size)

    def _all_frames(self) -> NDArray[np.uint8]:
        """The frames as one array, where that is how they are in memory."""
        count, first = self.config.frames + 1, lib.pyksm_frame(self._handle, 0)
        every = self._view("frames", first, np.uint8, count * self._page_size)
        return every.reshape(count, self._page_size)

    def pte_table(self, pid: int, addr: int) -> NDArray[np.uint64] | None:
        """The last-level page table over ``addr``: a read-only view, shape (512,), uint64.

        Entry k is the pte of address (addr rounded down to 2 MiB) + 4096 * k. None: no table.
        """
        with self._lock:
            pointer = self._raw("pte_table", lib.pyksm_pte_table, _id(pid), _addr(addr))
            if pointer == ffi.NULL:
                if operator.index(pid) not in self.processes():
                    raise MachineError(errno.ESRCH, "pte_table")
                return None
            return self._view("pte_table", pointer, np.uint64, 512 * 8)

    def counters(self) -> Mapping[str, int]:
        with self._lock:
            machine, counter = self._open("counters"), lib.pyksm_counter
            return {name: counter(machine, k) for k, name in enumerate(_COUNTERS)}

    def vmstat(self) -> Mapping[str, int]:
        with self._lock:
            machine, vmstat = self._open("vmstat"), lib.pyksm_vmstat
            return {
                name: vmstat(machine, k)
                for k, name in enumerate(_VMSTAT)
                if _VMSTAT_SINCE.get(name) in self._vmstat_of
            }

    def events(self) -> list[str]:
        """What the kernel would have logged since the last call, oldest first."""
        events = []
        with self._lock:
            machine, following = self._open("events"), lib.pyksm_next_event
            while (event := following(machine)) != ffi.NULL:
                events.append(ffi.string(event).decode("utf-8", "replace"))
        return events

    def census(self, strict: bool = False) -> list[str]:
        size = 1 << 16
        while True:
            buf = ffi.new("char[]", size)
            count = self._call("census", lib.pyksm_census, int(bool(strict)), buf, size)
            lines = ffi.string(buf).decode("utf-8", "replace").splitlines()
            if len(lines) >= count or size >= 1 << 28:
                return lines
            size *= 8

    def inject(self, kind: str, nth: int) -> None:
        """Let the nth (from 1) event of that kind from now on fail, once, beside those ordered
        before (8 of a kind at most: ENOSPC); 0 takes all of that kind back."""
        if kind not in FAULT_KINDS:
            raise MachineError(errno.EINVAL, f"inject {kind}")
        if operator.index(nth) < 0:
            raise MachineError(errno.EINVAL, f"inject {kind} {nth}")
        self._do(_INJECT, FAULT_KINDS.index(kind), nth)

    def set_hook(self, hook: Callable[[str], None] | None) -> None:
        """Call ``hook(name)`` at every schedule point; what it raises, the operation raises."""
        if hook is not None and not callable(hook):
            raise TypeError("hook must be callable or None")
        with self._lock:
            entry = ffi.NULL if hook is None else lib.pyksm_py_hook
            self._call("set_hook", lib.pyksm_set_hook, entry, self._self)
            self._hook = hook
