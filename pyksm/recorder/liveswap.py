"""Swap areas for recording on the kernel at hand, and nothing left of them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING

from pyksm.errors import InputError
from pyksm.recorder.livestate import Guard, read_knob, write_knob

if TYPE_CHECKING:
    from pyksm.recorder.live import Options

#: What an area can be, and what a user is told of it. RAM disks answer at once: newer kernels read
#: from them without the swap cache, which shows in what is recorded.
KINDS = {
    "file": "files",
    "loop": "loop devices on files",
    "zram": "zram devices",
    "brd": "RAM disks (module brd)",
}

_PAGE = 4096

# linux/loop.h
_LOOP_CONFIGURE, _LOOP_CTL_GET_FREE = 0x4C0A, 0x4C82
_LO_FLAGS_AUTOCLEAR = 4
#: struct loop_config: fd, block_size, struct loop_info64 (flags after 11 fields), 8 reserved.
_LOOP_CONFIG = struct.Struct("=II QQQQQ IIII 64s64s32s 2Q 8Q")


def make(guard: Guard, stack: contextlib.ExitStack, options: Options) -> list[str]:
    """Paths of areas that can be swapped on. InputError where they cannot be had."""
    make_one = {"file": _file, "loop": _loop, "zram": _zram, "brd": _brd}[options.swap]
    try:
        return [make_one(guard, stack, options, number) for number in range(options.areas)]
    except OSError as exc:
        where = f"{exc.filename}: " if exc.filename else ""
        raise InputError(
            f"live: no {KINDS[options.swap]} for swap: {where}{exc.strerror}"
        ) from None


def _file(guard: Guard, stack: contextlib.ExitStack, options: Options, number: int) -> str:
    """A file with all its blocks, as swapon wants it."""
    name = f"pyksm-live-{os.getpid()}-{number}"
    path = os.path.join(os.path.realpath(options.directory), name)
    if any(c.isspace() for c in path) or len(path) > 100:
        raise InputError(f"live: {options.directory}: expected a short path without spaces")
    guard.file(path)
    guard.swap(path)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, options.area_pages * _PAGE)
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, path) from None
    finally:
        os.close(fd)
    return path


def _loop(guard: Guard, stack: contextlib.ExitStack, options: Options, number: int) -> str:
    """A loop device that lets go of its file when the last user closes it (Linux 5.8 on)."""
    backing = os.open(_file(guard, stack, options, number), os.O_RDWR | os.O_CLOEXEC)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(16):  # somebody else may be given the same one
            index = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            path = f"/dev/loop{index}"
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            guard.swap(path)
            try:
                fcntl.ioctl(fd, _LOOP_CONFIGURE, _loop_config(backing))
            except OSError as exc:
                os.close(fd)
                if exc.errno != errno.EBUSY:
                    raise
            else:
                stack.callback(os.close, fd)
                return path
    finally:
        os.close(backing)
        os.close(control)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), "/dev/loop-control")


def _loop_config(backing: int) -> bytes:
    nothing = [0] * 5
    flags = _LO_FLAGS_AUTOCLEAR
    return _LOOP_CONFIG.pack(
        backing, _PAGE, *nothing, 0, 0, 0, flags, b"pyksm", b"", b"", 0, 0, *([0] * 8)
    )


def _zram(guard: Guard, stack: contextlib.ExitStack, options: Options, number: int) -> str:
    control = "/sys/class/zram-control"
    index = read_knob(f"{control}/hot_add")  # makes a device
    path = f"/dev/zram{index}"
    guard.on_the_way(f"{control}/hot_remove", index, only_while=f"/sys/block/zram{index}")
    guard.swap(path)
    write_knob(f"/sys/block/zram{index}/disksize", str(options.area_pages * _PAGE))
    return path


def _brd(guard: Guard, stack: contextlib.ExitStack, options: Options, number: int) -> str:
    """RAM disks that are there already and that nobody has open."""
    path = f"/dev/ram{number}"
    os.close(os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC))
    with open(f"/sys/block/ram{number}/size", encoding="ascii") as file:
        if int(file.read()) * 512 < options.area_pages * _PAGE:
            raise OSError(errno.ENOSPC, "too small (modprobe brd rd_nr=4 rd_size=65536)", path)
    guard.swap(path)
    return path
