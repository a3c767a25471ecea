"""Helpers of the scenario tests: files by name, answers by label, totals."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from pyksm.engine import policies_of
from pyksm.profiles import DEFAULT, effective
from pyksm.scenario import Scenario, parse, run

SCENARIOS = Path(__file__).parent / "scenarios"


def load(name: str) -> Scenario:
    """The scenario file ``tests/scenarios/NAME.ksm``."""
    path = SCENARIOS / f"{name}.ksm"
    return parse(path.read_bytes(), path.name)


def policies(scenario: Scenario) -> tuple[str, ...]:
    """The swapoff policies that its machine can have."""
    machine = scenario.machine
    return policies_of(effective(machine.profile or DEFAULT, machine.on, machine.off))


class Answer:
    """An answer with its results by label, op and line."""

    def __init__(self, scenario: Scenario | str, engine: Any, **options: Any) -> None:
        self.scenario = parse(scenario) if isinstance(scenario, str) else scenario
        self.answer = run(self.scenario, engine, **options)
        self.results: list[dict[str, Any]] = self.answer["results"]

    @classmethod
    def given(cls, scenario: Scenario, answer: dict[str, Any]) -> Answer:
        """An answer that somebody else has already given, a kernel for one."""
        made = cls.__new__(cls)
        made.scenario, made.answer, made.results = scenario, answer, answer["results"]
        return made

    def seen(self, label: str) -> dict[str, Any]:
        """The observation of that label."""
        (result,) = [each for each in self.results if each.get("label") == label]
        observation: dict[str, Any] = result["observation"]
        return observation

    def region(self, label: str, process: str, region: str = "r") -> dict[str, Any]:
        """A region as that observation has it."""
        found: dict[str, Any] = self.seen(label)["processes"][process][region]
        return found

    def states(self, label: str, region: str = "r") -> dict[str, str]:
        """State strings of a region by process."""
        return self._strings(label, region, "state")

    def ksm_bits(self, label: str, region: str = "r") -> dict[str, str]:
        """KSM strings of a region by process."""
        return self._strings(label, region, "ksm")

    def _strings(self, label: str, region: str, key: str) -> dict[str, str]:
        processes = self.seen(label)["processes"]
        return {name: had[region][key] for name, had in processes.items() if region in had}

    def frames(self, label: str) -> int:
        """How many different frames the pages of all processes are on."""
        return len(
            {
                page
                for regions in self.seen(label)["processes"].values()
                for region in regions.values()
                for page in region["page"]
                if page is not None
            }
        )

    def ops(self, op: str) -> list[dict[str, Any]]:
        """The results of one op."""
        return [each for each in self.results if each["op"] == op]

    def only(self, op: str) -> dict[str, Any]:
        """The result of an op that is there once."""
        (result,) = self.ops(op)
        return result

    def crcs(self) -> set[str]:
        """Every CRC read."""
        return {crc for each in self.ops("read") for crc in each["crc"]}

    def errors(self) -> list[tuple[int, str]]:
        """Line and errno of what could not be carried out."""
        return [(each["line"], each["errno"]) for each in self.results if each["errno"]]

    def events(self) -> list[str]:
        """Every event, in order, those of nested statements before their own."""
        said: list[str] = []
        for each in self.results:
            for nested in each.get("nested", []):
                said += nested.get("events", [])
            said += each.get("events", [])
        return said


def codes(violations: list[str]) -> Counter[str]:
    """Census lines by code."""
    return Counter(line.partition(":")[0] for line in violations)
