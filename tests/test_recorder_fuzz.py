"""Random programs for kernels, an engine in the kernel's place: what is found, and how small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from pyksm.hunt import against, forkernel
from pyksm.recorder import Recorder, RecorderError, check
from pyksm.recorder.recorder import refuse_model_only
from pyksm.scenario import Scenario, parse, run
from pyksm.scenario import statements as st

KERNEL = "6.1"

Spoil = Callable[[Scenario, dict[str, Any]], None]


class Pretender:
    """Answers as a kernel would that is exactly like the core, but for what ``spoil`` does."""

    kernel = "6.1.0"

    def __init__(self, spoil: Spoil = lambda scenario, answer: None) -> None:
        self.spoil = spoil
        self.asked = 0

    def record(self, scenario: Scenario, profile: str | None = None) -> dict[str, Any]:
        self.asked += 1
        answer = run(scenario, "core", profile=KERNEL) | {"engine": "kernel", "kernel": "6.1.0"}
        self.spoil(scenario, answer)
        return answer


def fuzz(pretender: Pretender, **how: Any) -> tuple[int, against.Finding | None, int]:
    boots = 0

    @contextmanager
    def opened() -> Iterator[Recorder]:
        nonlocal boots
        boots += 1
        yield cast(Recorder, pretender)

    tried, finding = against.fuzz_against(opened, **how)
    return tried, finding, boots


def test_nothing_to_find() -> None:
    pretender = Pretender()
    assert fuzz(pretender, programs=5, seed=1) == (5, None, 1)
    assert pretender.asked == 5


def test_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against, "BATCH", 2)
    assert fuzz(Pretender(), programs=5) == (5, None, 3)


def last_seen(answer: dict[str, Any]) -> dict[str, int]:
    """The vmstat of the last observation; one that is in no answer where there is none."""
    seen = [each["observation"]["vmstat"] for each in answer["results"] if "observation" in each]
    return seen[-1] if seen else {"cow_ksm": 0}


def wrong_after_a_fork(scenario: Scenario, answer: dict[str, Any]) -> None:
    if any(isinstance(each, st.Fork) for each in scenario.body):
        last_seen(answer)["cow_ksm"] += 1


def test_a_difference_is_shrunk() -> None:
    tried, finding, _ = fuzz(Pretender(wrong_after_a_fork), programs=20, seed=1)
    assert finding is not None
    assert finding.seed == tried
    assert [each.op for each in finding.scenario.body][-1] == "observe"
    assert len(finding.scenario.body) <= 3
    assert [each.path.split("/")[-1] for each in finding.differences] == ["cow_ksm"]


def test_an_engine_that_crashes_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    pretender = Pretender()

    def crash(*args: Any, **how: Any) -> Any:
        raise RuntimeError("what no engine should")

    monkeypatch.setattr(check, "run", crash)
    _, finding, _ = fuzz(pretender, programs=1)
    assert finding is not None
    assert str(finding.differences[0]).startswith("/crash: 'RuntimeError: what no engine should'")


def test_what_a_kernel_does_not_say_twice_is_noise() -> None:
    turn = iter(range(10**6))

    def moody(scenario: Scenario, answer: dict[str, Any]) -> None:
        last_seen(answer)["cow_ksm"] += next(turn)

    pretender = Pretender(moody)
    assert fuzz(pretender, programs=3, seed=1) == (3, None, 1)
    assert pretender.asked > 3


def test_a_lost_kernel_is_named_by_its_seed() -> None:
    def lost(scenario: Scenario, answer: dict[str, Any]) -> None:
        raise RecorderError("no answer to 'scan 2' within 9 s")

    with pytest.raises(RecorderError, match="seed 7: no answer to 'scan 2'"):
        fuzz(Pretender(lost), programs=3, seed=7)


def test_programs() -> None:
    """The same each time, nothing that kernels lack, and areas that set no slots aside."""
    programs = [forkernel.program(seed) for seed in range(150)]
    for seed, program in enumerate(programs):
        assert str(program) == str(forkernel.program(seed))
        assert parse(str(program)).statements == program.statements
        refuse_model_only(program)
        assert forkernel.quiet(program)
        assert not any(str(each) == "ksm run=1" for each in program.body)
    used = {each.op for program in programs for each in program.body}
    assert used >= {"swapoff", "scan", "fork", "migrate", "pin", "mremap", "ksm", "swapout"}
    assert used >= {"mlock", "munlock"}


@pytest.mark.parametrize(
    ("text", "quiet"),
    [
        ("spawn A", True),
        ("swapon S 150\nswapon T 169", True),
        ("swapon S 150\nswapon T 170", False),
        ("swapon S 200\nswapoff S\nswapon T 200", True),
        ("swapon S 12", False),
    ],
)
def test_quiet(text: str, quiet: bool) -> None:
    assert forkernel.quiet(parse(text)) == quiet
