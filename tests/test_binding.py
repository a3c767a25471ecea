"""The C binding: nothing that Python can pass may crash it, lose an error or read freed memory."""

from __future__ import annotations

import ast
import contextlib
import errno
import gc
import re
import threading
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import direct
import numpy as np
import pytest

import pyksm._core as _core
from pyksm import engine as names
from pyksm.core import _COUNTERS, _POINTS, _SWITCHES, PAGE_DTYPE, Core, mkswap, version
from pyksm.engine import Config
from pyksm.errors import InputError, MachineError

ROOT = Path(__file__).parent.parent
HEADER = ROOT / "csrc" / "include" / "pyksm.h"
PAGE = 4096


@pytest.fixture
def core() -> Any:
    machine = Core(Config(nodes=2, frames=512))
    yield machine
    machine.close()


@pytest.fixture
def region(core: Core) -> tuple[int, int]:
    """(pid, addr) of 8 written pages."""
    pid = core.spawn()
    addr = core.mmap(pid, 8)
    assert core.write_pages(pid, addr, bytes(range(256)) * 16 * 8) == [0] * 8
    return pid, addr


def header_functions() -> set[str]:
    return set(re.findall(r"^PYKSM_API .*?(pyksm_\w+)\(", HEADER.read_text(), re.MULTILINE))


def test_every_function_of_the_header_is_bound() -> None:
    functions = header_functions()
    assert len(functions) > 50
    assert functions <= set(dir(_core.lib))


def test_stub_lists_what_the_header_declares() -> None:
    stub = ast.parse((ROOT / "pyksm" / "_core.pyi").read_text())
    lib = next(n for n in stub.body if isinstance(n, ast.ClassDef) and n.name == "_Lib")
    typed = {n.name: n for n in lib.body if isinstance(n, ast.FunctionDef)}
    assert set(typed) == header_functions()
    for name, node in typed.items():
        args = _core.ffi.typeof(getattr(_core.lib, name)).args
        assert len(node.args.args) - 1 == len(args), name


def test_versions_agree() -> None:
    import pyksm

    meson = re.search(r"version: '([^']+)'", (ROOT / "meson.build").read_text())
    assert meson is not None
    assert version() == pyksm.__version__ == meson[1]


def test_page_dtype_is_the_c_struct() -> None:
    ffi = _core.ffi
    assert ffi.sizeof("struct pyksm_page") == PAGE_DTYPE.itemsize
    assert PAGE_DTYPE.fields is not None
    struct = dict(ffi.typeof("struct pyksm_page").fields)
    assert set(struct) - {"pad"} == set(PAGE_DTYPE.fields)
    for name, (dtype, offset) in PAGE_DTYPE.fields.items():
        assert struct[name].offset == offset, name
        assert ffi.sizeof(struct[name].type) == dtype.itemsize, name


def test_names_of_c_are_those_of_the_interface() -> None:
    assert _SWITCHES == names.SWITCHES
    assert set(_POINTS) == set(names.SCHEDULE_POINTS)
    assert len(names.FAULT_KINDS) == _core.lib.PYKSM_NR_FAULT_KINDS
    assert len(set(_COUNTERS)) == len(_COUNTERS) > 30


@pytest.mark.parametrize(
    ("config", "kind", "code"),
    [
        (Config(nodes=0), MachineError, errno.EINVAL),
        (Config(nodes=-1), MachineError, errno.EINVAL),
        (Config(nodes=65), MachineError, errno.EINVAL),
        (Config(nodes=1 << 40), MachineError, errno.EINVAL),
        (Config(frames=0), MachineError, errno.EINVAL),
        (Config(frames=1 << 70), MachineError, errno.EINVAL),
        (Config(page_size=12), MachineError, errno.EINVAL),
        (Config(page_size=-4096), MachineError, errno.EINVAL),
        (Config(profile="2.6"), InputError, None),
        (Config(policy="magic"), InputError, None),
        (Config(walk="guessed"), InputError, None),
        (Config(transfer="magic"), InputError, None),
        (Config(threads=0), MachineError, errno.EINVAL),
        (Config(threads=3), MachineError, errno.EINVAL),
        (Config(switches=frozenset({"no-such-switch"})), InputError, None),
    ],
)
def test_configs_that_cannot_be(config: Config, kind: type[Exception], code: int | None) -> None:
    with pytest.raises(kind) as caught:
        Core(config)
    assert getattr(caught.value, "errno", None) == code


def test_configs_of_wrong_type() -> None:
    with pytest.raises(TypeError):
        Core(Config(frames="many"))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Core(Config(nodes=1.5))  # type: ignore[arg-type]


WILD = (-1, -(2**31) - 1, -(2**63) - 1, 2**31, 2**32, 2**47, 2**63, 2**64, 2**64 + 4096, 2**200)

#: Every operation with one wild integer at a time: (name, good arguments).
OPERATIONS: list[tuple[str, tuple[Any, ...]]] = [
    ("fork", (1,)),
    ("exit", (1,)),
    ("mmap", (1, 1, 0, -1)),
    ("munmap", (1, 4 << 30, 1)),
    ("mprotect", (1, 4 << 30, 1, 1)),
    ("mlock", (1, 4 << 30, 1)),
    ("munlock", (1, 4 << 30, 1)),
    ("mremap", (1, 4 << 30, 1, 9 << 30)),
    ("madvise", (1, 4 << 30, 1, 12)),
    ("write_pages", (1, 4 << 30, bytes(PAGE))),
    ("read_pages", (1, 4 << 30, 1)),
    ("write", (1, 4 << 30, b"x")),
    ("read", (1, 4 << 30, 1)),
    ("touch", (1, 4 << 30, 1, True)),
    ("pin", (1, 4 << 30, 1)),
    ("pin", (1, 4 << 30, 1, True)),
    ("unpin", (1, 4 << 30, 1)),
    ("migrate", (1, 4 << 30, 1, 0)),
    ("swapon", (16, 5)),
    ("swapoff", (0,)),
    ("swap_count", (0, 1)),
    ("swap_map", (0, 1)),
    ("ksm_write", ("run", 1)),
    ("ksm_scan", (1,)),
    ("ksm_do_scan", (1,)),
    ("pagemap", (1, 4 << 30, 1)),
    ("pagemap_array", (1, 4 << 30, 1)),
    ("rmap_walk", (1, 4 << 30)),
    ("vmas", (1,)),
    ("free_frames", (0,)),
    ("frame", (1,)),
    ("pte_table", (1, 4 << 30)),
    ("inject", ("page", 1)),
]


@pytest.mark.parametrize(("name", "good"), OPERATIONS, ids=[name for name, _ in OPERATIONS])
def test_wild_integers_are_refused_or_harmless(name: str, good: tuple[Any, ...]) -> None:
    for position, value in enumerate(good):
        if not isinstance(value, int):
            continue
        for wild in WILD:
            core = Core(Config(frames=64))
            pid = core.spawn()
            core.mmap(pid, 4)
            core.swapon(8)
            if name == "swapon" and wild > 2**20:
                continue  # a vast area is lawful, and no memory is needed until it is used
            args = (*good[:position], wild, *good[position + 1 :])
            with contextlib.suppress(MachineError):
                getattr(core, name)(*args)
            assert core.census() == [], args
            core.close()


@pytest.mark.parametrize(("name", "good"), OPERATIONS, ids=[name for name, _ in OPERATIONS])
def test_wrong_types_are_type_errors(core: Core, name: str, good: tuple[Any, ...]) -> None:
    core.mmap(core.spawn(), 4)
    for position, value in enumerate(good):
        if isinstance(value, bool):
            continue
        bad: tuple[Any, ...] = ("1", 1.0, None, [1]) if isinstance(value, int) else (1, None, [1])
        for wrong in bad:
            args = (*good[:position], wrong, *good[position + 1 :])
            if name == "inject" and position == 0:
                continue  # a kind that does not exist is EINVAL, whatever it is
            with pytest.raises(TypeError):
                getattr(core, name)(*args)


def test_numpy_integers_are_integers(core: Core, region: tuple[int, int]) -> None:
    pid, addr = region
    assert core.touch(np.int64(pid), np.uint64(addr), np.int32(2)) == [0, 0]


@pytest.mark.parametrize("seed", range(500, 540))
def test_a_hook_changes_nothing(seed: int) -> None:
    """Without a hook most calls go to C at once; with one each is looked after."""

    def watched(config: Config) -> Core:
        core = Core(config)
        core.set_hook(lambda point: None)
        return core

    assert direct.first_difference(direct.play(Core, seed), direct.play(watched, seed)) is None


def test_what_only_turns_into_an_integer_is_none(core: Core, region: tuple[int, int]) -> None:
    pid, addr = region
    for wrong in (Decimal(pid), Fraction(pid), np.float32(pid)):
        for call in (core.touch, core.read, core.read_pages, core.pagemap, core.pin):
            with pytest.raises(TypeError):
                call(wrong, addr, 1)
        with pytest.raises(TypeError):
            core.write(wrong, addr, b"x")  # type: ignore[arg-type]


def test_an_error_of_one_page_is_its_own(core: Core, region: tuple[int, int]) -> None:
    """A refused call raises, whatever the call for one page before it had to say of the page."""
    pid, addr = region
    core.munmap(pid, addr + PAGE, 1)
    for _ in range(2):
        assert core.touch(pid, addr + PAGE, 1) == [errno.EFAULT]
        assert core.read_pages(pid, addr + PAGE, 1) == (bytes(PAGE), [errno.EFAULT])
        assert core.write_pages(pid, addr + PAGE, bytes(PAGE)) == [errno.EFAULT]
        for wrong_pid, wrong, code in ((99, addr, errno.ESRCH), (pid, addr + 1, errno.EINVAL)):
            with pytest.raises(MachineError) as caught:
                core.touch(wrong_pid, wrong, 1)
            assert caught.value.errno == code
        assert core.touch(pid, addr, 1) == [0]
        assert core.migrate(pid, addr + PAGE, 1, 0) == [-errno.EFAULT]
        assert core.migrate(pid, addr, 1, 0) == [0]


def test_frames_of_a_closed_machine_are_no_more(core: Core, region: tuple[int, int]) -> None:
    pid, addr = region
    core.write(pid, addr, b"still there")
    pfn = core.pagemap(pid, addr, 1)[0].pfn
    views = [core.frame(pfn) for _ in range(3)]
    core.close()
    with pytest.raises(MachineError) as caught:
        core.frame(pfn)
    assert caught.value.errno == errno.EBADF
    assert {view[:11].tobytes() for view in views} == {b"still there"}
    assert not any(view.flags.writeable for view in views)


def test_names_with_nul_or_surrogates(core: Core) -> None:
    for key in ("run\0", "\udc80", "", "é"):
        with pytest.raises(MachineError) as caught:
            core.ksm_read(key)
        assert caught.value.errno == errno.ENOENT
    with pytest.raises(MachineError):
        core.swapon(0, -1, "a\0b")
    with pytest.raises(MachineError):
        mkswap("a\0b", 16)


def test_closed_machine_is_ebadf(region: tuple[int, int]) -> None:
    core = Core(Config(frames=64))
    core.close()
    core.close()
    for name, good in OPERATIONS:
        with pytest.raises(MachineError) as caught:
            getattr(core, name)(*good)
        assert caught.value.errno == errno.EBADF, name
    for name in ("spawn", "processes", "areas", "counters", "vmstat", "events", "census"):
        with pytest.raises(MachineError) as caught:
            getattr(core, name)()
        assert caught.value.errno == errno.EBADF, name
    assert "closed" in repr(core)


def test_bulk_sizes_beyond_memory(core: Core, region: tuple[int, int]) -> None:
    pid, addr = region
    for operation in (core.read_pages, core.touch, core.pagemap):
        with pytest.raises(MachineError) as caught:
            operation(pid, addr, 1 << 33)
        assert caught.value.errno == errno.ENOMEM
        with pytest.raises(MachineError) as caught:
            operation(pid, addr, 1 << 36)
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(MachineError) as caught:
            operation(99, addr, 1 << 36)
        assert caught.value.errno == errno.ESRCH


# buffers


def test_buffers_in_and_out(core: Core, region: tuple[int, int]) -> None:
    pid, addr = region
    array = np.arange(2 * PAGE // 8, dtype=np.uint64).reshape(2, -1)
    assert core.write_pages(pid, addr, array) == [0, 0]
    assert core.read_pages(pid, addr, 2) == (array.tobytes(), [0, 0])
    out = np.zeros((3, PAGE), dtype=np.uint8)
    assert core.read_pages_into(pid, addr, out[:2]) == [0, 0]
    assert out[:2].tobytes() == array.tobytes()
    assert not out[2].any()
    core.write(pid, addr + 5, memoryview(b"hello"))
    assert core.read(pid, addr + 4, 7)[1:6] == b"hello"
    assert core.read(pid, addr, 0) == b""


def test_buffers_that_do_not_fit(core: Core, region: tuple[int, int]) -> None:
    pid, addr = region
    for data in (b"x", b"", bytes(PAGE + 1)):
        with pytest.raises(MachineError) as caught:
            core.write_pages(pid, addr, data)
        assert caught.value.errno == errno.EINVAL
    with pytest.raises((ValueError, BufferError)):
        core.read_pages_into(pid, addr, bytes(PAGE))
    with pytest.raises((ValueError, BufferError)):
        core.write_pages(pid, addr, np.zeros((4, PAGE), dtype=np.uint8)[:, ::2])
    with pytest.raises(TypeError):
        core.write_pages(pid, addr, "text")  # type: ignore[arg-type]


def test_page_errors_are_results(core: Core, region: tuple[int, int]) -> None:
    pid, addr = region
    core.munmap(pid, addr + PAGE, 1)
    assert core.write_pages(pid, addr, bytes(3 * PAGE)) == [0, errno.EFAULT, 0]
    content, errors = core.read_pages(pid, addr + PAGE, 2)
    assert content == bytes(2 * PAGE)
    assert errors == [errno.EFAULT, 0]
    assert core.migrate(pid, addr, 3, 1)[1] < 0


# views


def test_frame_is_a_live_read_only_view(core: Core, region: tuple[int, int]) -> None:
    pid, addr = region
    view = core.frame(int(core.pagemap_array(pid, addr, 1)["pfn"][0]))
    assert view.shape == (PAGE,)
    assert view.tobytes() == bytes(range(256)) * 16
    core.write(pid, addr, b"now")
    assert view[:3].tobytes() == b"now"
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.flags.writeable = True
    for pfn in (-1, 513, 2**70):
        with pytest.raises(MachineError) as caught:
            core.frame(pfn)
        assert caught.value.errno == errno.EINVAL


def test_pte_table_is_a_live_read_only_view(core: Core, region: tuple[int, int]) -> None:
    pid, addr = region
    table = core.pte_table(pid, addr)
    assert table is not None
    first = addr // PAGE % 512
    assert table[first : first + 8].tolist() == [p.pte for p in core.pagemap(pid, addr, 8)]
    core.madvise(pid, addr, 8, names.MADV_DONTNEED)
    assert not table.any()
    with pytest.raises(ValueError, match="WRITEABLE"):
        table.flags.writeable = True
    assert core.pte_table(pid, 40 << 30) is None
    with pytest.raises(MachineError) as caught:
        core.pte_table(pid + 1, addr)
    assert caught.value.errno == errno.ESRCH


def test_views_outlive_the_machine() -> None:
    core = Core(Config(frames=64))
    pid = core.spawn()
    addr = core.mmap(pid, 1)
    core.write(pid, addr, b"still here")
    frame = core.frame(core.pagemap(pid, addr, 1)[0].pfn)
    table = core.pte_table(pid, addr)
    assert table is not None
    tail = frame[:10]
    core.close()
    del core, frame
    gc.collect()
    filler = [bytearray(1 << 20) for _ in range(8)]
    assert tail.tobytes() == b"still here"
    assert table.any()
    del filler


def test_machine_is_freed_with_its_last_reference() -> None:
    import weakref

    core = Core(Config(frames=64))
    core.set_hook(lambda point: None)
    gone = weakref.ref(core)
    del core
    assert gone() is None  # no cycle: without the collector


# the hook


def merged(core: Core) -> tuple[int, int]:
    """Two processes whose pages KSM can merge, swap on: many schedule points lie ahead."""
    pid = core.spawn()
    addr = core.mmap(pid, 8)
    core.write_pages(pid, addr, bytes(8 * PAGE))
    core.madvise(pid, addr, 8, names.MADV_MERGEABLE)
    return pid, addr


def run_with(core: Core, hook: Callable[[str], None] | None) -> None:
    core.set_hook(hook)
    core.ksm_scan(1)


def test_hook_sees_named_points(core: Core) -> None:
    merged(core)
    seen: list[str] = []
    run_with(core, seen.append)
    assert seen
    assert set(seen) <= set(names.SCHEDULE_POINTS)
    seen.clear()
    run_with(core, None)
    assert not seen
    with pytest.raises(TypeError):
        core.set_hook(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt, SystemExit])
def test_hook_exception_reaches_the_caller(core: Core, kind: type[BaseException]) -> None:
    merged(core)
    calls = 0

    def hook(point: str) -> None:
        nonlocal calls
        calls += 1
        raise kind("from the hook")

    with pytest.raises(kind, match="from the hook"):
        run_with(core, hook)
    assert calls == 1  # the rest of the operation runs undisturbed
    assert core.census() == []
    core.set_hook(None)
    core.spawn()  # not raised again


def test_hook_may_call_the_machine(core: Core) -> None:
    pid, addr = merged(core)
    depth = 0

    def hook(point: str) -> None:
        nonlocal depth
        if depth == 0:
            depth = 1
            core.write(pid, addr, b"while it scans")
            with pytest.raises(MachineError) as caught:
                core.fork(12345)
            assert caught.value.errno == errno.ESRCH

    run_with(core, hook)
    assert depth == 1
    assert core.read(pid, addr, 5) == b"while"
    assert core.census() == []


def test_inner_exception_passes_through_the_outer_operation(core: Core) -> None:
    merged(core)
    inner: list[BaseException] = []

    def hook(point: str) -> None:
        if not inner:
            try:
                core.swapoff(17)
            except MachineError as error:
                inner.append(error)
                raise

    with pytest.raises(MachineError) as caught:
        run_with(core, hook)
    assert caught.value is inner[0]


def test_close_in_a_hook_is_ebusy(core: Core) -> None:
    merged(core)
    with pytest.raises(MachineError) as caught:
        run_with(core, lambda point: core.close())
    assert caught.value.errno == errno.EBUSY
    core.set_hook(None)
    core.spawn()


def test_threads_take_turns(core: Core) -> None:
    pid, addr = merged(core)
    errors: list[BaseException] = []

    def work(base: int) -> None:
        try:
            for k in range(200):
                core.write(pid, addr + base * PAGE, k.to_bytes(8, "little"))
                core.ksm_scan(1)
                assert core.read(pid, addr + base * PAGE, 8) == k.to_bytes(8, "little")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    core.set_hook(lambda point: None)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert core.census() == []


def test_machines_on_threads_of_their_own() -> None:
    results: list[dict[str, int]] = []

    def work() -> None:
        machine = Core(Config(frames=512))
        merged(machine)
        machine.ksm_scan(3)
        results.append(dict(machine.counters()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(result == results[0] for result in results)
