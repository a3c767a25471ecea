"""Pack recordings of kernels into one compressed file for the tests.

    pack.py RECORDINGS        (RECORDINGS/scenarios/*.ksm, RECORDINGS/KERNEL/*.json)

writes recordings.json.xz beside this script: each scenario's text and what each kernel answered,
and for each kernel the unstable paths, the lines from which a full area makes the rest hang on
timing, and the functions whose calls were counted. Times are left out. All in one file, because
kernels answer so much alike that five together pack into little more than two apart.
"""

from __future__ import annotations

import json
import lzma
import re
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent / "recordings.json.xz"
#: What a kernel's folder may have beside answers.
NOTES = ("functions", "unstable", "lingering")


def pack(recordings: Path) -> dict[str, Any]:
    """Everything that the tests need."""
    folders = {path.parent.name for path in recordings.glob("*/*.json")}
    kernels = sorted(folders, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
    texts = {path.stem: path.read_text("utf-8") for path in sorted(recordings.glob("*/*.ksm"))}
    return {
        "kernels": {kernel: _notes(recordings / kernel) for kernel in kernels},
        "scenarios": {
            name: {
                "text": text,
                "answers": {
                    kernel: _answer(path)
                    for kernel in kernels
                    if (path := recordings / kernel / f"{name}.json").exists()
                },
            }
            for name, text in texts.items()
        },
    }


def _notes(folder: Path) -> dict[str, Any]:
    paths = {name: folder / f"{name}.json" for name in NOTES}
    return {
        name: json.loads(path.read_text("utf-8")) if path.exists() else {}
        for name, path in paths.items()
    }


def _answer(path: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(path.read_text("utf-8"))
    for result in answer["results"]:
        result.pop("ms", None)
    return answer


def main() -> None:
    """Write the file and say how large it is."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    packed = json.dumps(pack(Path(sys.argv[1])), separators=(",", ":")).encode()
    TARGET.write_bytes(lzma.compress(packed, preset=9 | lzma.PRESET_EXTREME))
    print(f"{TARGET.name}: {len(packed)} bytes packed into {TARGET.stat().st_size}")


if __name__ == "__main__":
    main()
