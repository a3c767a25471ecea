"""Races among the findings, tried on a booted kernel: ``boot.py KERNEL RACE [SECONDS [apart]]``.

KERNEL is a Debian package of a kernel, RACE the name of a program here, which becomes the init of a
guest with two processors and two memory nodes (qemu without KVM, a host thread each). Shows what
the guest's console said. docs/findings.md says what is to be expected.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path

from pyksm.bench.population import swap_header
from pyksm.recorder import package
from pyksm.recorder.guest import QEMU, initramfs, machine_arguments, start

HERE = Path(__file__).parent
BOOT_SECONDS = 120
SLOTS = 4096


def console(kernel: str, race: str, seconds: int, *arguments: str) -> str:
    """What the guest said until it ended: by itself, by a panic, or after ``seconds`` and some."""
    with tempfile.TemporaryDirectory() as directory:
        where = Path(directory)
        compile_ = ("cc", "-O1", "-Wall", "-Wextra", "-D_GNU_SOURCE", "-static", "-pthread")
        program = where / "init"
        subprocess.run((*compile_, str(HERE / f"{race}.c"), "-o", str(program)), check=True)
        read = package.read([kernel])
        (where / "kernel").write_bytes(read.image)
        (where / "initrd").write_bytes(initramfs(read, program.read_bytes()))
        (where / "swap").write_bytes(swap_header(SLOTS).ljust(SLOTS * 4096, b"\0"))
        said = where / "console"
        given = " ".join((str(seconds), *arguments))
        process = start(_command(where, said, given))
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):  # it will say no more
                process.wait(BOOT_SECONDS + seconds)
        finally:
            process.kill()
            process.wait()
        return said.read_text("utf-8", "replace")


def _command(where: Path, said: Path, given: str) -> list[str]:
    command = machine_arguments(QEMU, "tcg,thread=multi", nodes=2, processors=2)
    command += ["-kernel", str(where / "kernel"), "-initrd", str(where / "initrd")]
    command += ["-drive", f"file={where / 'swap'},format=raw,if=none,id=swap,cache=unsafe"]
    command += ["-device", "virtio-blk-pci,drive=swap"]
    options = "console=ttyS0 panic=-1 oops=panic quiet loglevel=4 mitigations=off"
    command += ["-append", f"{options} -- {given}", "-serial", f"file:{said}"]
    return command


def main(kernel: str, race: str, seconds: str = "60", *arguments: str) -> None:
    print(console(kernel, race, int(seconds), *arguments), end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
