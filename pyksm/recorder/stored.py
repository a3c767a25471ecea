"""Answers of kernels in files: what ``pyksm record`` wrote, read again for comparison."""

from __future__ import annotations

import json
from typing import Any

from pyksm.errors import InputError
from pyksm.scenario import Scenario
from pyksm.scenario.parser import shown

#: Which scenario contract an answer is of. Recordings made before it was noted are of the first.
CONTRACT = 1

_LIMIT = 256 << 20


def read(path: str, scenario: Scenario) -> dict[str, Any]:
    """A kernel's answer to this very scenario; :class:`InputError` says what it is instead."""
    name = shown(path)
    try:
        with open(path, "rb") as file:
            answer: dict[str, Any] = json.loads(file.read(_LIMIT))
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}, expected a recording") from None
    except (ValueError, RecursionError):
        raise InputError(f"{name}: not JSON, expected a recording") from None
    _check_head(name, answer)
    if wrong := _mismatch(answer["results"], scenario):
        asked = shown(scenario.filename)
        raise InputError(f"{name}: {wrong}, expected a recording of {asked} as it is")
    return answer


def _mismatch(results: list[dict[str, Any]], scenario: Scenario) -> str:
    """What shows that these are results of another scenario; nothing where they are not.

    A recording ends early where its kernel did not come back from a swapoff.
    """
    said = [(each["line"], each["op"]) for each in results]
    asked = [(each.line, each.op) for each in scenario.body]
    for index, (one, other) in enumerate(zip(said, asked, strict=False)):
        if one != other:
            return f"result {index} is of line {one[0]} ({one[1]})"
    if len(said) == len(asked) or (said and results[-1]["errno"] == "ETIMEDOUT"):
        return ""
    return f"{len(said)} results"


def _check_head(name: str, answer: Any) -> None:
    if not isinstance(answer, dict) or not isinstance(answer.get("kernel"), str):
        raise InputError(f"{name}: no kernel's answer, expected a recording")
    contract = answer.get("contract", CONTRACT)
    if contract != CONTRACT:
        raise InputError(
            f"{name}: a recording of contract version {shown(str(contract))}, expected {CONTRACT}"
        )
    results = answer.get("results")
    if not isinstance(results, list) or not all(map(_is_result, results)):
        raise InputError(f"{name}: results are not those of the contract, expected a recording")


def _is_result(result: Any) -> bool:
    if not isinstance(result, dict) or not {"line", "op", "errno"} <= result.keys():
        return False
    seen = result.get("observation")
    return seen is None or (
        isinstance(seen, dict)
        and {"processes", "ksm", "swap", "swapcached", "vmstat"} <= seen.keys()
    )
