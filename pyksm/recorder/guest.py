"""A kernel booted under qemu, with the agent as its init.

Nothing of a guest is a file: kernel, initramfs, disks and console are anonymous memory that qemu
inherits, so nothing is left behind however the recorder ends. The agent resets the machine when
the recorder hangs up, at which qemu ends; it is also told to die with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

from pyksm.recorder import agent, package
from pyksm.recorder.link import Link, RecorderError
from pyksm.recorder.recorder import Recorder

QEMU = "qemu-system-x86_64"
NODES, NODE_MIB, AREAS = 2, 256, 8
MAX_NODES, MAX_AREAS = 8, 24
_PAGE = 4096
_CONSOLE_SHOWN = 160


@dataclass(frozen=True)
class Options:
    """What a guest is made of. ``boot_seconds``: how long it may take to say hello."""

    kernel: Sequence[str]  #: the files that have it: see :func:`.package.read`
    nodes: int = NODES
    areas: int = AREAS
    area_pages: int = 16384
    accel: str = "auto"  #: auto, kvm or tcg
    boot_seconds: float = 120.0
    statement_seconds: float = 120.0
    qemu: str = QEMU


def accelerator(wanted: str) -> str:
    """``auto`` is TCG: KVM inside another guest may hang."""
    return "tcg" if wanted == "auto" else wanted


@dataclass
class Guest:
    """A booted guest: a context manager whose ``recorder`` records."""

    options: Options
    recorder: Recorder = field(init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _memory: list[int] = field(default_factory=list, init=False)
    _console: int = field(default=-1, init=False)
    _link: Link | None = field(default=None, init=False)

    def __enter__(self) -> Guest:
        try:
            self._boot(package.read(self.options.kernel))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the guest; qemu is gone when this returns."""
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.2)
            self._process.kill()
            self._process.wait()
            self._process = None
        while self._memory:
            os.close(self._memory.pop())

    def _boot(self, kernel: package.Kernel) -> None:
        qemu = shutil.which(self.options.qemu)
        if qemu is None:
            raise RecorderError(
                f"{self.options.qemu} is not there, expected qemu (Debian: qemu-system-x86)"
            )
        image = self._in_memory("kernel", kernel.image)
        initrd = self._in_memory("initramfs", initramfs(kernel, agent.program().read_bytes()))
        disks = [self._in_memory(f"disk{k}", b"") for k in range(self.options.areas)]
        for disk in disks:
            os.ftruncate(disk, self.options.area_pages * _PAGE)
        self._console = self._in_memory("console", b"")
        ours, theirs = socket.socketpair()
        with theirs:
            command = _command(qemu, self.options, image, initrd, disks, self._console, theirs)
            self._process = start(command, [*self._memory, theirs.fileno()])
        fd = ours.detach()
        self._link = Link(fd, fd, self._why_dead)
        self.recorder = Recorder(
            self._link,
            statement_seconds=self.options.statement_seconds,
            hello_seconds=self.options.boot_seconds,
        )

    def _in_memory(self, name: str, content: bytes) -> int:
        fd = os.memfd_create(name)
        self._memory.append(fd)
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        return fd

    def _why_dead(self) -> str:
        """How qemu ended, if it has, and the last that the guest's console said."""
        status = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self._process.wait(0.5)
        size = os.fstat(self._console).st_size
        text = os.pread(self._console, 4096, max(0, size - 4096)).decode("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        ended = "qemu still runs" if status is None else f"qemu ended with status {status}"
        telling = [line for line in lines if "panic" in line or line.startswith("agent:")]
        said = (telling or lines or ["nothing"])[-1][:_CONSOLE_SHOWN]
        return f"{ended}, the console's last word was: {said}"


def initramfs(kernel: package.Kernel, init: bytes) -> bytes:
    """A program as its init, and the kernel's modules, by names in the order in which they load."""
    files = [(name, 0o040755, b"") for name in ("dev", "proc", "sys", "modules")]
    files.append(("init", 0o100755, init))
    for index, (name, data) in enumerate(kernel.modules):
        files.append((f"modules/{index:02}-{name}.ko", 0o100644, data))
    return package.cpio(files, [("dev/console", 5, 1)])


def machine_arguments(qemu: str, accel: str, nodes: int, processors: int = 1) -> list[str]:
    """qemu and the guest's machine: memory nodes, all processors on the first one."""
    command = [qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    # mem-merge: qemu would offer the guest's memory to this machine's KSM.
    command += ["-machine", "pc,mem-merge=off", "-accel", accel, "-smp", str(processors)]
    if accel == "kvm":
        command += ["-cpu", "host,arch-capabilities=off"]
    command += ["-m", str(nodes * NODE_MIB)]
    for node in range(nodes):
        command += ["-object", f"memory-backend-ram,id=m{node},size={NODE_MIB}M"]
        cpus = f",cpus=0-{processors - 1}" if node == 0 else ""
        command += ["-numa", f"node,nodeid={node},memdev=m{node}{cpus}"]
    return command


def _command(
    qemu: str,
    options: Options,
    image: int,
    initrd: int,
    disks: list[int],
    console: int,
    link: socket.socket,
) -> list[str]:
    def inherited(fd: int) -> str:
        return f"/proc/self/fd/{fd}"

    accel = accelerator(options.accel)
    command = machine_arguments(qemu, accel, options.nodes)
    command += ["-kernel", inherited(image), "-initrd", inherited(initrd)]
    command += ["-append", "console=ttyS0 panic=-1 quiet loglevel=4 nokaslr mitigations=off"]
    command += ["-serial", f"file:{inherited(console)}"]
    command += ["-device", "virtio-serial-pci", "-chardev", f"socket,id=link,fd={link.fileno()}"]
    command += ["-device", "virtserialport,chardev=link,name=pyksm"]
    for index, disk in enumerate(disks):
        drive = (
            f"file={inherited(disk)},format=raw,if=none,id=d{index},cache=unsafe,file.locking=off"
        )
        command += ["-drive", drive, "-device", f"virtio-blk-pci,drive=d{index}"]
    return command


_PR_SET_PDEATHSIG = 1


def start(command: list[str], fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """qemu, which does not outlive this process."""
    libc = ctypes.CDLL(None, use_errno=True)  # loaded here: the child may not

    def die_with_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if os.environ.get("QERR") else subprocess.DEVNULL,
            pass_fds=fds,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    except OSError as error:
        raise RecorderError(f"{command[0]}: {error.strerror}, expected qemu to start") from None
