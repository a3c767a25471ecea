"""Mutation check of the C core: the tests must notice every mutant of the table.

``run.py [--jobs N] [--only WORD] [--build DIR]``. Each mutant is compiled alone and
linked with the objects of the unchanged core into an extension of its own, then driver.py holds it
against the oracle's answers; one in a file that only the build with tasks has is held against the
answers of the unchanged build by tasks_driver.py. A crash or a hang is noticed too. Exit 0: all
killed; 1: survivors.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import pickle
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from mutant import Mutant, apply
from table import MUTANTS

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300
MEMORY_BYTES = 8 << 30
CORE = "libpyksm-core.a"
TASKS = ("libpyksm-tasks-runtime.a", "libpyksm-tasks-core.a")
#: Programs on the engine's interface, for what scenarios have no words for: direct.play()'s seeds.
DIRECT = 125
EXTENSIONS = {"_core": ("_core.abi3.so", CORE), "_tasks": ("_tasks.abi3.so", *TASKS)}


@dataclass(frozen=True)
class Outcome:
    mutant: Mutant
    killed: bool
    how: str
    seconds: float


class Build:
    """The unchanged core, built once, and how its files are compiled and linked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        if not (directory / "build.ninja").exists():
            options = ["-Dpython=enabled", "-Dlibrary=false", "-Db_ndebug=true", "-Ddebug=false"]
            self._run(["meson", "setup", str(directory), "-Doptimization=1", *options], ROOT)
        self._run(["ninja", "-C", str(directory)], ROOT)
        commands = json.loads((directory / "compile_commands.json").read_text())
        #: By the library or extension, then by the file's name.
        self.compile: dict[str, dict[str, Any]] = {}
        for each in commands:
            target = Path(each["output"]).parent.name.removesuffix(".p")
            self.compile.setdefault(target, {})[Path(each["file"]).name] = each

    @staticmethod
    def _run(command: list[str], cwd: Path) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command, cwd=cwd, env=os.environ | {"PATH": path}, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{shlex.join(command)}:\n{done.stdout}{done.stderr}")

    def package(self, where: Path, changed: dict[tuple[str, str], Path], name: str = "") -> None:
        """A package directory whose extensions have ``changed`` objects in place of the core's.

        Only the extension ``name`` is linked, where one is given; the other is the base's.
        """
        package = where / "pyksm"
        package.mkdir(parents=True)
        for each in (ROOT / "pyksm").iterdir():
            if not each.name.startswith(("_core.abi3", "_tasks.abi3", "__pycache__")):
                (package / each.name).symlink_to(each)
        for extension, targets in EXTENSIONS.items():
            output = package / f"{extension}.abi3.so"
            if name and name != extension:
                output.symlink_to(self.directory / "scratch" / "base" / "pyksm" / output.name)
                continue
            objects = [
                str(changed.get((target, file), self.directory / each["output"]))
                for target in targets
                for file, each in self.compile[target].items()
            ]
            self._run(["cc", "-shared", *objects, "-o", str(output)], where)

    def mutate(self, mutant: Mutant, where: Path) -> None:
        """Compile the mutant's file and link a package with it."""
        where.mkdir(parents=True)
        target = self.target(mutant)
        source, output = where / mutant.file, where / f"{mutant.file}.o"
        text = apply(mutant, (ROOT / "csrc" / mutant.file).read_text())
        source.write_text(f'#line 1 "{mutant.file}"\n{text}')
        words = shlex.split(self.compile[target][mutant.file]["command"])
        words = words[: words.index("-MD")] if "-MD" in words else words[: words.index("-o")]
        command = [word for word in words if word != "-Werror"]
        core = str(ROOT / "csrc")
        command += ["-I", core, "-w", "-o", str(output), "-c", str(source)]
        self._run(command, self.directory)
        extension = "_core" if target == CORE else "_tasks"
        self.package(where, {(target, mutant.file): output}, extension)

    def target(self, mutant: Mutant) -> str:
        """The plain build's library, or that of the build with tasks alone."""
        if mutant.file in self.compile[CORE] and not mutant.tasks:
            return CORE
        return next(target for target in TASKS if mutant.file in self.compile[target])


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def drive(package: Path, answers: Path, driver: str = "driver.py") -> tuple[bool, str]:
    """Run the driver on a package: whether it noticed anything, and what."""
    command = [sys.executable, str(Path(__file__).with_name(driver)), str(answers)]
    env = os.environ | {"PYTHONPATH": str(package)}
    try:
        done = subprocess.run(
            command,
            env=env,
            cwd=package,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            preexec_fn=_limit,
        )
    except subprocess.TimeoutExpired:
        return True, f"hangs (over {TIMEOUT_S} s)"
    if done.returncode == 0:
        return False, "not noticed"
    if done.returncode == 1 and done.stdout:
        return True, done.stdout.strip().splitlines()[0][:160]
    if done.returncode == -signal.SIGALRM:
        return True, "hangs"
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return True, f"crash ({done.returncode}): {last[:140]}"


def attempt(build: Build, mutant: Mutant, where: Path, answers: Path) -> Outcome:
    begin = time.monotonic()
    build.mutate(mutant, where)
    if build.target(mutant) == CORE:
        killed, how = drive(where, answers)
    else:
        killed, how = drive(where, answers.with_name("tasks"), "tasks_driver.py")
    shutil.rmtree(where)
    return Outcome(mutant, killed, how, time.monotonic() - begin)


def _oracle(what: Any) -> Any:
    from driver import ask

    return what, ask(what, "oracle")


def oracle_answers(base: Path, jobs: int, answers: Path) -> None:
    """What the oracle makes of every scenario and program of the driver, kept in a file."""
    sys.path.insert(0, str(base))
    from driver import scenarios

    wanted = [*scenarios(ROOT / "tests" / "scenarios"), *range(DIRECT)]
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        answers.write_bytes(pickle.dumps(pool.map(_oracle, wanted, chunksize=4)))
    print(f"{len(wanted)} scenarios and programs answered by the oracle", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="mutants with this word in file, line or reason")
    parser.add_argument("--build", type=Path, default=ROOT / "build-mutants")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    build = Build(arguments.build.resolve())
    scratch = build.directory / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    build.package(scratch / "base", {})
    answers = scratch / "answers"
    oracle_answers(scratch / "base", arguments.jobs, answers)
    differs, how = drive(scratch / "base", answers)
    if differs:
        print(f"the unchanged core differs from the oracle already: {how}")
        return 1
    for again in ("keeps its answers", "gives them again"):
        differs, how = drive(scratch / "base", scratch / "tasks", "tasks_driver.py")
        if differs:
            print(f"the unchanged build with tasks that {again}: {how}")
            return 1
    wanted = [m for m in MUTANTS if arguments.only in f"{m.file} {m.old} {m.why}"]
    survivors = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        futures = [
            pool.submit(attempt, build, mutant, scratch / str(number), answers)
            for number, mutant in enumerate(wanted)
        ]
        for future in futures:
            outcome = future.result()
            survivors += not outcome.killed
            state = "killed  " if outcome.killed else "SURVIVED"
            print(f"{state} {outcome.seconds:5.1f} s  {outcome.mutant.file}: {outcome.mutant.why}")
            print(f"         {outcome.how}", flush=True)
    print(f"{len(wanted) - survivors} of {len(wanted)} mutants killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
