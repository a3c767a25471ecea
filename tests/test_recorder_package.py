"""Kernel packages, good and bad, and the initramfs that is made of them."""

from __future__ import annotations

import io
import lzma
import shutil
import tarfile
from pathlib import Path

import pytest

from pyksm.recorder import package
from pyksm.recorder.link import RecorderError

IMAGE = bytes(0x202) + b"HdrS" + b"kernel" * 100


def module(name: str, *depends: str) -> bytes:
    return (
        b"\x7fELF....\0depends=" + ",".join(depends).encode() + b"\0name=" + name.encode() + b"\0"
    )


def tar_of(files: dict[str, bytes], how: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{how}") as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def ar_of(members: dict[str, bytes]) -> bytes:
    out = b"!<arch>\n"
    for name, data in members.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}".encode() + b"`\n"
        out += data + b"\n" * (len(data) % 2)
    return out


def deb_of(files: dict[str, bytes]) -> bytes:
    return ar_of(
        {
            "debian-binary": b"2.0\n",
            "control.tar.xz": tar_of({"control": b"Package: x\n"}, "xz"),
            "data.tar.xz": tar_of(files, "xz"),
        }
    )


MODULES = "lib/modules/9.9/kernel/drivers"
GOOD = {
    "boot/config-9.9": b"CONFIG_KSM=y\n",
    "boot/vmlinuz-9.9": IMAGE,
    f"{MODULES}/block/virtio_blk.ko": module("virtio_blk", "virtio_ring", "virtio"),
    f"{MODULES}/char/virtio_console.ko.xz": lzma.compress(module("virtio_console", "virtio")),
    f"{MODULES}/net/virtio-net.ko": module("virtio_net", "virtio"),
    f"{MODULES}/virtio/virtio.ko": module("virtio"),
    f"{MODULES}/virtio/virtio_pci.ko": module("virtio_pci", "virtio-ring", "virtio"),
    f"{MODULES}/virtio/virtio_ring.ko": module("virtio_ring", "virtio"),
}


def written(tmp_path: Path, data: bytes, name: str = "kernel.deb") -> str:
    path = tmp_path / name
    path.write_bytes(data)
    return str(path)


def test_image_and_wanted_modules_behind_what_they_depend_on(tmp_path: Path) -> None:
    kernel = package.read([written(tmp_path, deb_of(GOOD))])
    assert kernel.image == IMAGE
    names = [name for name, _ in kernel.modules]
    assert names == ["virtio", "virtio_ring", "virtio_pci", "virtio_blk", "virtio_console"]
    assert all(data.startswith(b"\x7fELF") for _, data in kernel.modules)


def test_built_in_drivers_are_no_modules(tmp_path: Path) -> None:
    kernel = package.read([written(tmp_path, deb_of({"boot/vmlinuz-9.9": IMAGE}))])
    assert kernel.modules == []


def test_image_and_modules_in_packages_of_their_own(tmp_path: Path) -> None:
    image = written(tmp_path, deb_of({"usr/lib/modules/9.9/vmlinuz": IMAGE}), "binary.deb")
    drivers = {f"usr/{name}": data for name, data in GOOD.items() if name.startswith("lib")}
    modules = written(tmp_path, deb_of(drivers), "modules.deb")
    kernel = package.read([image, modules])
    assert (kernel.image, len(kernel.modules)) == (IMAGE, 5)
    assert package.read([modules, image]) == kernel


def test_bare_image(tmp_path: Path) -> None:
    assert package.read([written(tmp_path, IMAGE, "vmlinuz")]).image == IMAGE
    assert package.read([written(tmp_path, b"\x7fELF" + bytes(600), "vmlinux")]).modules == []


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no command zstd")
def test_zstd(tmp_path: Path) -> None:
    import subprocess

    packed = subprocess.run(
        ["zstd", "-qc"], input=tar_of(GOOD), capture_output=True, check=True
    ).stdout
    kernel = package.read([written(tmp_path, ar_of({"data.tar.zst": packed}))])
    assert len(kernel.modules) == 5


BAD = {
    "empty": (b"", "not a kernel, expected a Debian kernel package"),
    "text": (b"#!/bin/sh\n" * 200, "not a kernel, expected"),
    "no data": (ar_of({"debian-binary": b"2.0\n"}), "package without data.tar"),
    "no kernel": (deb_of({"boot/config-9.9": b"x"}), "no vmlinuz in it"),
    "header cut": (deb_of(GOOD)[:40], "broken package"),
    "data cut": (deb_of(GOOD)[:-40], "package cut short"),
    "header broken": (b"!<arch>\n" + b"x" * 60, "broken package"),
    "data no xz": (ar_of({"data.tar.xz": b"rubbish" * 50}), "expected a Debian kernel package"),
    "data no tar": (ar_of({"data.tar.xz": lzma.compress(b"rubbish" * 200)}), "expected a Debian"),
    "data unknown": (ar_of({"data.tar.lz4": b"x" * 50}), "package with data.tar.lz4"),
    "xz cut": (ar_of({"data.tar.xz": tar_of(GOOD, "xz")[:200]}), "expected a Debian"),
    "zstd broken": (ar_of({"data.tar.zst": b"x" * 50}), "zstd"),
    "module broken": (
        deb_of(GOOD | {f"{MODULES}/block/virtio_blk.ko.xz": b"rubbish"}),
        "a broken module",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_package(what: str, tmp_path: Path) -> None:
    data, said = BAD[what]
    with pytest.raises(RecorderError) as raised:
        package.read([written(tmp_path, data)])
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(RecorderError, match="No such file or directory, expected a Debian"):
        package.read([str(tmp_path / "none.deb")])
    with pytest.raises(RecorderError, match="Is a directory"):
        package.read([str(tmp_path)])


def test_depends() -> None:
    assert package.depends(module("a")) == []
    assert package.depends(module("a", "b-c", "d")) == ["b_c", "d"]
    assert package.depends(b"no module") == []


def test_cpio_is_what_the_kernel_unpacks() -> None:
    """Read back by the format's own rules: headers of hex words, everything in fours."""
    made = package.cpio(
        [("dev", 0o040755, b""), ("init", 0o100755, b"12345")], [("dev/console", 5, 1)]
    )
    entries, at = [], 0
    while at < len(made):
        assert made[at : at + 6] == b"070701"
        words = [int(made[at + 6 + k * 8 : at + 14 + k * 8], 16) for k in range(13)]
        name = made[at + 110 : at + 110 + words[11] - 1].decode()
        body = -(-(at + 110 + words[11]) // 4) * 4
        entries.append((name, words[1], made[body : body + words[6]], (words[9], words[10])))
        at = -(-(body + words[6]) // 4) * 4
    assert entries == [
        ("dev", 0o040755, b"", (0, 0)),
        ("init", 0o100755, b"12345", (0, 0)),
        ("dev/console", 0o020600, b"", (5, 1)),
        ("TRAILER!!!", 0, b"", (0, 0)),
    ]
