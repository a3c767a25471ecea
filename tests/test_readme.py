"""Every snippet of README.md runs, as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pyksm.scenario import statements as st

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?:<!-- ci: (\w+) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
BLOCKS = [(mark, kind, text) for mark, kind, text in BLOCK.findall(README)]


def blocks(kind: str) -> list[str]:
    return [text for mark, each, text in BLOCKS if each == kind and not mark]


def run(command: list[str], cwd: Path) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), str(cwd), os.environ["PATH"]])
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_first_screen_has_the_two_commands() -> None:
    first = "\n".join(README.splitlines()[:40])
    assert re.findall(r"<!-- ci: (\w+) -->", first) == ["run", "test"]
    marked = {mark: text for mark, _, text in BLOCKS if mark}
    assert all(text.count("\n") == 1 for text in marked.values())


@pytest.mark.parametrize("text", blocks("python"), ids=range(len(blocks("python"))))
def test_python_snippet(text: str, tmp_path: Path) -> None:
    (tmp_path / "snippet.py").write_text(text)
    run([sys.executable, "snippet.py"], tmp_path)


def test_policies_snippet_shows_what_the_text_says(tmp_path: Path) -> None:
    (tmp_path / "snippet.py").write_text(blocks("python")[0])
    lines = run([sys.executable, "snippet.py"], tmp_path).splitlines()
    assert lines[-2] == "8 processes, reread: 2048 reads, 0 copies"
    assert lines[-1] == "8 processes, memcpy: 256 reads, 1792 copies"


def test_shell_snippet(tmp_path: Path) -> None:
    """With the installed ``pyksm``, or the package under test where none is installed."""
    if not (Path(sys.executable).parent / "pyksm").exists():
        script = tmp_path / "pyksm"
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m pyksm "$@"\n')
        script.chmod(0o755)
    (race,) = (text for text in blocks("sh") if "race.ksm" in text)
    found = "   # what is wrong; exit status 1\n"
    assert race.endswith(found)
    race = race.removesuffix(found) + " || test $? = 1"
    for text in (*blocks("sh")[:2], race):
        run(["bash", "-euo", "pipefail", "-c", text], tmp_path)


def test_c_snippet(tmp_path: Path) -> None:
    """Against the public header alone, then linked with the core's own sources."""
    (tmp_path / "snippet.c").write_text(blocks("c")[0])
    public = ["-I", str(ROOT / "csrc" / "include")]
    run(["cc", "-std=c11", "-Werror", *public, "-c", "snippet.c", "-o", "snippet.o"], tmp_path)
    for name in ("features", "bugs"):
        table = [str(ROOT / "csrc" / f"gen_{name}.py"), str(ROOT / "pyksm" / f"{name}.py")]
        run([sys.executable, *table, f"kernel_{name}.h"], tmp_path)
    build = (ROOT / "csrc" / "meson.build").read_text(encoding="utf-8")
    lists = re.findall(r"(?:core|untraced)_sources = files\(([^)]*)\)", build)
    assert len(lists) == 2
    sources = [str(ROOT / "csrc" / name) for each in lists for name in re.findall("'(.*?)'", each)]
    flags = ["-std=c11", "-D_GNU_SOURCE", *public, "-I", str(ROOT / "csrc"), "-I", "."]
    run(["cc", *flags, "snippet.o", *sources, "-o", "snippet"], tmp_path)
    assert run(["./snippet"], tmp_path) == "1 references to the slot\n"


def test_language_table_has_every_statement() -> None:
    (table,) = re.findall(r"\| statement \| meaning \|\n(.*?)\n\n", README, re.DOTALL)
    rows = " ".join(row.split(" | ")[0] for row in table.replace("\\|", "").splitlines())
    words = set(re.findall(r"`(\w+)", rows))
    known = {*st.STATEMENTS, *st.BLOCKS}
    assert known <= words
    assert {op for op in words if op.islower()} <= known


def test_named_files_exist() -> None:
    for name in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / name).exists(), name
