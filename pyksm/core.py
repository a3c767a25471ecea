"""The C engine: :class:`Core` answers the engine interface with the compiled core.

Arguments that do not fit the C types are not truncated: they are clamped to a value that the core
refuses with the errno that the address or number itself deserves, so a wild integer gives a
:class:`~pyksm.errors.MachineError` like any other bad argument, and what is not an integer at all
a ``TypeError``. Calls on one machine are serialised by a lock that a hook's own calls pass;
machines share nothing.
"""

from __future__ import annotations

import errno
import operator
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from pyksm._core import ffi, lib
from pyksm.arrays import PAGE_DTYPE, Buffer
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
    return [-code for code in status.tolist()]


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
    """How the core searches arrays, for all machines of the process; no result differs.

    ``want``: "portable", "avx2", or "auto", the best that the host has, and what a process begins
    with unless the environment variable ``PYKSM_SIMD`` says otherwise. None only asks.

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
        self.config = Config() if config is None else config
        c_config = _c_config(self.config)
        self._page_size = int(c_config.page_size)
        self._vmstat_of = {None, *self.config.features}
        self._lock = threading.RLock()
        self._depth = 0
        self._hook: Callable[[str], None] | None = None
        self._error: BaseException | None = None
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
            self._handle = None

    def _raw(self, what: str, function: Callable[..., Any], *args: Any) -> Any:
        """Call C; raise what a hook raised meanwhile; leave C's own answer to the caller."""
        with self._lock:
            handle = self._handle
            if handle is None:
                raise MachineError(errno.EBADF, f"{what}: machine is closed")
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

    # processes

    def spawn(self) -> int:
        return self._call("spawn", lib.pyksm_spawn)

    def fork(self, pid: int) -> int:
        return self._call("fork", lib.pyksm_fork, _id(pid))

    def exit(self, pid: int) -> None:
        self._call("exit", lib.pyksm_exit, _id(pid))

    def processes(self) -> list[int]:
        with self._lock:
            count = self._call("processes", lib.pyksm_process_count)
            return [self._call("processes", lib.pyksm_process_at, k) for k in range(count)]

    # address space

    def mmap(self, pid: int, npages: int, addr: int = 0, node: int = -1) -> int:
        return self._call(
            "mmap", lib.pyksm_mmap, _id(pid), _addr(addr), _count(npages), _clamp(node, -2, 1 << 30)
        )

    def munmap(self, pid: int, addr: int, npages: int) -> None:
        self._call("munmap", lib.pyksm_munmap, _id(pid), _addr(addr), _count(npages))

    def mprotect(self, pid: int, addr: int, npages: int, prot: int) -> None:
        self._call(
            "mprotect", lib.pyksm_mprotect, _id(pid), _addr(addr), _count(npages), _i32(prot)
        )

    def mremap(self, pid: int, addr: int, npages: int, new_addr: int) -> None:
        self._call(
            "mremap", lib.pyksm_mremap, _id(pid), _addr(addr), _count(npages), _addr(new_addr)
        )

    def madvise(self, pid: int, addr: int, npages: int, advice: int) -> None:
        self._call(
            "madvise", lib.pyksm_madvise, _id(pid), _addr(addr), _count(npages), _i32(advice)
        )

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
        status = np.full(npages, _UNTOUCHED, dtype=np.int32)
        ret = self._raw(what, function, *args, ffi.from_buffer("int32_t[]", status))
        if ret < 0 and (npages == 0 or status[0] == _UNTOUCHED):
            raise MachineError(-ret, what)
        return _positive(status, ret)

    def write_pages(self, pid: int, addr: int, data: Buffer) -> list[int]:
        """Write whole pages from any contiguous buffer, without a copy of it on the way.

        :returns: a 0 or errno (positive) for each page.
        """
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
        target = ffi.from_buffer("char[]", out, require_writable=True)
        npages, rest = divmod(len(target), self._page_size)
        if rest:
            raise MachineError(errno.EINVAL, "read_pages: not whole pages")
        return self._each(
            "read_pages", lib.pyksm_read_pages, _id(pid), _addr(addr), npages, target, npages=npages
        )

    def write(self, pid: int, addr: int, data: Buffer) -> None:
        source = ffi.from_buffer("char[]", data)
        size = len(source)
        if not size:
            source = _NO_BYTES  # not NULL, which C refuses
        self._call("write", lib.pyksm_write, _id(pid), _addr(addr), source, size)

    def read(self, pid: int, addr: int, length: int) -> bytes:
        size = operator.index(length)
        if size < 0:
            raise MachineError(errno.EINVAL, f"read: length {size}")
        self._bulk("read", pid, size, 1, _USER_PAGES << 12)
        out = np.zeros(size, dtype=np.uint8)
        target = ffi.from_buffer("char[]", out) if size else _NO_BYTES
        self._call("read", lib.pyksm_read, _id(pid), _addr(addr), target, size)
        return out.tobytes()

    def touch(self, pid: int, addr: int, npages: int, write: bool = False) -> list[int]:
        pages = _count(npages)
        return self._each(
            "touch", lib.pyksm_touch, _id(pid), _addr(addr), pages, int(bool(write)), npages=pages
        )

    def pin(self, pid: int, addr: int, npages: int) -> None:
        self._call("pin", lib.pyksm_pin, _id(pid), _addr(addr), _count(npages))

    def unpin(self, pid: int, addr: int, npages: int) -> None:
        self._call("unpin", lib.pyksm_unpin, _id(pid), _addr(addr), _count(npages))

    def migrate(self, pid: int, addr: int, npages: int, node: int) -> list[int]:
        pages = _count(npages)
        self._bulk("migrate", pid, pages, 16)
        status = np.zeros(pages, dtype=np.int32)
        out = ffi.from_buffer("int32_t[]", status)
        target = _clamp(node, -2, 1 << 30)
        self._call("migrate", lib.pyksm_migrate, _id(pid), _addr(addr), pages, target, out)
        answers: list[int] = status.tolist()
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
        self._call("swapoff", lib.pyksm_swapoff, _id(type))

    def _all(
        self, what: str, cdecl: str, function: Callable[..., int], *args: Any
    ) -> Iterator[Any]:
        """Every record that an ``_at`` function knows, by index; the first errno ends them."""
        index = 0
        record = ffi.new(cdecl)
        while self._raw(what, function, *args, index, record) >= 0:
            yield record
            index += 1

    def areas(self) -> list[AreaInfo]:
        with self._lock:
            return [
                AreaInfo(a.type, a.priority, a.pages, a.used, a.max)
                for a in self._all("areas", "struct pyksm_area *", lib.pyksm_area_at)
            ]

    def rmap_walk(self, pid: int, addr: int) -> int:
        return self._call("rmap_walk", lib.pyksm_rmap_walk, _id(pid), _addr(addr))

    def swap_count(self, type: int, offset: int) -> int:
        return self._call("swap_count", lib.pyksm_swap_count, _id(type), _addr(offset))

    def swap_map(self, type: int, offset: int) -> int:
        return self._call("swap_map", lib.pyksm_swap_map, _id(type), _addr(offset))

    def swapcached(self) -> int:
        return self._call("swapcached", lib.pyksm_swapcached)

    def swapout(self, ranges: Sequence[tuple[int, int, int]] = ()) -> None:
        wanted = [(_id(pid), 0, _addr(addr), _count(npages)) for pid, addr, npages in ranges]
        array = ffi.new("struct pyksm_range[]", wanted) if wanted else ffi.NULL
        self._call("swapout", lib.pyksm_swapout, array, len(wanted))

    # KSM

    def ksm_write(self, key: str, value: int) -> None:
        number = _clamp(value, -_I64_MAX - 1, _I64_MAX)
        self._call(f"ksm {key}={value}", lib.pyksm_ksm_write, _text(key, "key"), number)

    def ksm_read(self, key: str) -> int:
        ret = ffi.new("int64_t *")
        self._call(f"ksm {key}", lib.pyksm_ksm_read, _text(key, "key"), ret)
        return int(ret[0])

    def ksm_counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        with self._lock:
            while (key := self._raw("ksm", lib.pyksm_ksm_count_name, len(counts))) != ffi.NULL:
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
        self._call("prctl", lib.pyksm_prctl_memory_merge, _id(pid), int(bool(on)))

    def memory_merge(self, pid: int) -> bool:
        return bool(self._call("prctl", lib.pyksm_memory_merge, _id(pid)))

    def ksm_scan(self, n: int) -> int:
        return self._call("scan", lib.pyksm_ksm_scan, _u32(n, "scans"))

    def ksm_do_scan(self, npages: int) -> None:
        self._call("ksm_do_scan", lib.pyksm_ksm_do_scan, _u32(npages, "pages to scan"))

    # time and references

    def clear_refs(self, pid: int, what: int) -> None:
        self._call("clear_refs", lib.pyksm_clear_refs, _id(pid), _i32(what))

    def sleep(self, ms: int) -> None:
        self._call("sleep", lib.pyksm_sleep, _clamp(ms, -1, _I32_MAX + 1))

    # observation

    def pagemap_array(self, pid: int, addr: int, npages: int) -> NDArray[np.void]:
        """Pages observed without touching them: shape (npages,), dtype ``PAGE_DTYPE``."""
        pages = _count(npages)
        self._bulk("pagemap", pid, pages, PAGE_DTYPE.itemsize)
        out = np.zeros(pages, dtype=PAGE_DTYPE)
        records = ffi.from_buffer("struct pyksm_page[]", out)
        self._call("pagemap", lib.pyksm_pagemap, _id(pid), _addr(addr), pages, records)
        return out

    def pagemap(self, pid: int, addr: int, npages: int) -> list[PageInfo]:
        return [
            PageInfo(
                state.decode("ascii"), pte, pfn, swp_type, offset, ksm, swapcache, mapcount, node
            )
            for pte, pfn, swp_type, node, offset, mapcount, state, ksm, swapcache in (
                self.pagemap_array(pid, addr, npages).tolist()
            )
        ]

    def vmas(self, pid: int) -> list[VmaInfo]:
        with self._lock:
            if operator.index(pid) not in self.processes():
                raise MachineError(errno.ESRCH, "vmas")
            return [
                VmaInfo(v.start, v.end, v.pgoff, v.prot, v.node, bool(v.mergeable), v.chain)
                for v in self._all("vmas", "struct pyksm_vma *", lib.pyksm_vma_at, _id(pid))
            ]

    def free_frames(self, node: int = -1) -> int:
        return self._call("free_frames", lib.pyksm_free_frames, _clamp(node, -2, 1 << 30))

    def peak_frames(self, reset: bool = False) -> int:
        return self._call("peak_frames", lib.pyksm_peak_frames, int(bool(reset)))

    def _view(self, what: str, pointer: Any, dtype: Any, size: int) -> NDArray[Any]:
        """A read-only array over C memory whose owner holds the machine, so that it outlives us."""
        owner = ffi.gc(ffi.cast("char *", pointer), _Holder(self._handle))
        return np.frombuffer(memoryview(ffi.buffer(owner, size)).toreadonly(), dtype=dtype)

    def frame(self, pfn: int) -> NDArray[np.uint8]:
        """Content of a frame: a read-only view, shape (page_size,). EINVAL: no such frame.

        With ``transfer="reference"`` it is a view of where the content is now: once somebody
        writes to the page, that may be elsewhere, and then ask again.
        """
        with self._lock:
            pointer = self._raw("frame", lib.pyksm_frame, _clamp(pfn, -1, _I64_MAX))
            if pointer == ffi.NULL:
                raise MachineError(errno.EINVAL, f"frame {pfn}")
            return self._view("frame", pointer, np.uint8, self._page_size)

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
            return {
                name: self._raw("counters", lib.pyksm_counter, k)
                for k, name in enumerate(_COUNTERS)
            }

    def vmstat(self) -> Mapping[str, int]:
        with self._lock:
            return {
                name: self._raw("vmstat", lib.pyksm_vmstat, k)
                for k, name in enumerate(_VMSTAT)
                if _VMSTAT_SINCE.get(name) in self._vmstat_of
            }

    def events(self) -> list[str]:
        """What the kernel would have logged since the last call, oldest first."""
        events = []
        with self._lock:
            while (event := self._raw("events", lib.pyksm_next_event)) != ffi.NULL:
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
        """Let the nth (from 1) event of that kind from now on fail, once; 0 takes it back."""
        if kind not in FAULT_KINDS:
            raise MachineError(errno.EINVAL, f"inject {kind}")
        if operator.index(nth) < 0:
            raise MachineError(errno.EINVAL, f"inject {kind} {nth}")
        number = _clamp(nth, 0, _U64_MAX)
        self._call("inject", lib.pyksm_inject, FAULT_KINDS.index(kind), number)

    def set_hook(self, hook: Callable[[str], None] | None) -> None:
        """Call ``hook(name)`` at every schedule point; what it raises, the operation raises."""
        if hook is not None and not callable(hook):
            raise TypeError("hook must be callable or None")
        with self._lock:
            entry = ffi.NULL if hook is None else lib.pyksm_py_hook
            self._call("set_hook", lib.pyksm_set_hook, entry, self._self)
            self._hook = hook
