"""Pack recordings of a kernel into one compressed file for the tests.

    pack.py RECORDINGS KERNEL        (RECORDINGS/scenarios/*.ksm, RECORDINGS/KERNEL/*.json)

writes recordings-KERNEL.json.xz beside this script: scenario texts and answers by name, the
unstable paths, the lines from which a full area makes the rest hang on timing. Times are left out.
"""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path

NOT_A_SCENARIO = {"functions", "unstable", "lingering"}


def pack(recordings: Path, kernel: str) -> dict[str, object]:
    """Everything that the tests need of one kernel's recordings."""
    folder = recordings / kernel
    scenarios = {}
    for path in sorted(folder.glob("*.json")):
        if path.stem in NOT_A_SCENARIO:
            continue
        answer = json.loads(path.read_text(encoding="utf-8"))
        for result in answer["results"]:
            result.pop("ms", None)
        text = (recordings / "scenarios" / f"{path.stem}.ksm").read_text(encoding="utf-8")
        scenarios[path.stem] = {"text": text, "answer": answer}
    extra = {
        name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("functions", "unstable", "lingering")
    }
    return {"kernel": kernel, "scenarios": scenarios, **extra}


def main() -> None:
    """Write the file and say how large it is."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    packed = json.dumps(pack(Path(sys.argv[1]), sys.argv[2]), separators=(",", ":"))
    target = Path(__file__).parent / f"recordings-{sys.argv[2]}.json.xz"
    target.write_bytes(lzma.compress(packed.encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{target.name}: {len(packed)} bytes packed into {target.stat().st_size}")


if __name__ == "__main__":
    main()
