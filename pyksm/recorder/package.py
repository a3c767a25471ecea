"""Kernels out of files: a Debian package (ar, tar, modules) or a bare vmlinuz."""

from __future__ import annotations

import io
import lzma
import os
import re
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

from pyksm.recorder.link import RecorderError
from pyksm.scenario.parser import shown

#: Modules that the guest wants, unless they are built in: the disks and the port.
WANTED = ("virtio_pci", "virtio_blk", "virtio_console")

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60
_MODULE = re.compile(r"(?:^|/)lib/modules/[^/]+/kernel/.*?([^/]+)\.ko(\.xz|\.zst|\.gz)?$")
_KERNEL = re.compile(r"^(?:\./)?(?:boot/vmlinuz-[^/]+|(?:usr/)?lib/modules/[^/]+/vmlinuz)$")
#: Everything in a kernel package is smaller: no file of one may fill the memory.
_FILE_LIMIT = 256 << 20


@dataclass
class Kernel:
    """A kernel image, and the modules that it wants in the order in which they load."""

    image: bytes = b""
    modules: list[tuple[str, bytes]] = field(default_factory=list)


@dataclass
class _Found:
    """What the files hold: an image, and modules still packed."""

    image: bytes = b""
    packed: dict[str, tuple[str, bytes]] = field(default_factory=dict)


def read(paths: Sequence[str]) -> Kernel:
    """The kernel in some files: one of them has the image, others perhaps its modules.

    :class:`RecorderError` says what one of them is not.
    """
    found = _Found()
    for path in paths:
        _read_one(path, found)
    if not found.image:
        names = ", ".join(shown(path) for path in paths)
        raise RecorderError(f"{names}: no vmlinuz in it, expected the package of a kernel image")
    try:
        return Kernel(found.image, _load_order(found.packed))
    except (lzma.LZMAError, zlib.error, _BadArchive) as error:
        raise RecorderError(f"{shown(paths[0])}: a broken module: {error}") from None


def _read_one(path: str, found: _Found) -> None:
    try:
        with open(path, "rb") as file:
            magic = file.read(len(_AR_MAGIC))
            if magic == _AR_MAGIC:
                _package(file, shown(path), found)
                return
            file.seek(0)
            image = file.read(_FILE_LIMIT)
    except OSError as error:
        raise RecorderError(f"{shown(path)}: {error.strerror}, expected {_EXPECTED}") from None
    if image[0x202:0x206] != b"HdrS" and image[:4] != b"\x7fELF":
        raise RecorderError(f"{shown(path)}: not a kernel, expected {_EXPECTED}")
    found.image = image


_EXPECTED = "a Debian kernel package (.deb) or a vmlinuz"


def _package(file: IO[bytes], name: str, found: _Found) -> None:
    try:
        kind, data = _data_member(file)
        with tarfile.open(fileobj=_unpacked(kind, data), mode="r|") as tar:
            _contents(tar, found)
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, _BadArchive) as error:
        raise RecorderError(f"{name}: {error or 'cut short'}, expected {_EXPECTED}") from None


class _BadArchive(Exception):
    """Not an ar file as Debian makes them."""


def _data_member(file: IO[bytes]) -> tuple[str, IO[bytes]]:
    """The package's data.tar.KIND: its kind and its bytes."""
    while header := file.read(_AR_HEADER):
        if (
            len(header) != _AR_HEADER
            or header[58:] != b"`\n"
            or not header[48:58].strip().isdigit()
        ):
            raise _BadArchive("broken package")
        size = int(header[48:58])
        name = header[:16].decode("ascii", "replace").strip().rstrip("/")
        if name.startswith("data.tar"):
            data = file.read(size)
            if len(data) != size:
                raise _BadArchive("package cut short")
            return name.removeprefix("data.tar"), io.BytesIO(data)
        file.seek(size + size % 2, os.SEEK_CUR)
    raise _BadArchive("package without data.tar")


def _unpacked(kind: str, data: IO[bytes]) -> IO[bytes]:
    if kind == "":
        return data
    if kind == ".xz":
        return lzma.open(data)
    if kind == ".gz":
        import gzip

        return gzip.open(data)  # type: ignore[return-value]
    if kind == ".zst":
        return io.BytesIO(_zstd(data.read()))
    raise _BadArchive(f"package with data.tar{kind}")


def _contents(tar: tarfile.TarFile, found: _Found) -> None:
    """One pass over the package: the kernel, and all modules that could be wanted."""
    for member, data in _files(tar):
        if _KERNEL.match(member):
            found.image = data
        elif module := _MODULE.search(member):
            found.packed[module.group(1).replace("-", "_")] = (module.group(2) or "", data)


def _files(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in tar:
        wanted = _KERNEL.match(member.name) or (
            (module := _MODULE.search(member.name)) and _may_be_wanted(module.group(1))
        )
        if wanted and member.isfile() and member.size <= _FILE_LIMIT:
            file = tar.extractfile(member)
            if file is not None:
                yield member.name, file.read()


def _may_be_wanted(module: str) -> bool:
    """virtio drivers depend on nothing but virtio: the rest of a package stays packed."""
    return module.startswith("virtio")


def _load_order(packed: dict[str, tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The wanted modules behind what they depend on; what is not there is built in."""
    order: dict[str, bytes] = {}

    def visit(name: str) -> None:
        if name in order or name not in packed:
            return
        suffix, data = packed[name]
        module = _module(suffix, data)
        for needed in depends(module):
            visit(needed)
        order[name] = module

    for name in WANTED:
        visit(name)
    return list(order.items())


def _module(suffix: str, data: bytes) -> bytes:
    if suffix == ".xz":
        return lzma.decompress(data)
    if suffix == ".gz":
        return zlib.decompress(data, wbits=31)
    if suffix == ".zst":
        return _zstd(data)
    return data


def depends(module: bytes) -> list[str]:
    """What a module says it depends on (its .modinfo has NUL-ended ``key=value``)."""
    found = re.search(rb"(?:^|\0)depends=([A-Za-z0-9_,-]*)\0", module)
    names = found.group(1).decode().split(",") if found else []
    return [name.replace("-", "_") for name in names if name]


def _zstd(data: bytes) -> bytes:
    """By the zstd command: the standard library knows the format from Python 3.14 on only."""
    command = shutil.which("zstd")
    if command is None:
        raise RecorderError(
            "the package is packed with zstd, expected the command zstd to unpack it"
        )
    done = subprocess.run([command, "-dcq"], input=data, capture_output=True, check=False)
    if done.returncode:
        raise _BadArchive("broken zstd data")
    return done.stdout


def cpio(files: list[tuple[str, int, bytes]], devices: list[tuple[str, int, int]]) -> bytes:
    """An initramfs (newc): (name, mode, data) of files and directories, (name, major, minor)."""
    out = io.BytesIO()
    entries = [(name, mode, data, (0, 0)) for name, mode, data in files]
    entries += [(name, 0o020600, b"", (major, minor)) for name, major, minor in devices]
    for inode, (name, mode, data, device) in enumerate([*entries, ("TRAILER!!!", 0, b"", (0, 0))]):
        path = name.encode() + b"\0"
        numbers = (inode + 1, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
        out.write(b"070701" + b"".join(b"%08x" % number for number in numbers) + path)
        out.write(bytes(-out.tell() % 4) + data)
        out.write(bytes(-out.tell() % 4))
    return out.getvalue()
