"""Engines held against a kernel: the same scenario, the same answer but for noise."""

from __future__ import annotations

from typing import Any

from pyksm import profiles
from pyksm.errors import InputError, PyksmError
from pyksm.recorder import noise
from pyksm.recorder.recorder import Recorder
from pyksm.scenario import Scenario, run
from pyksm.scenario.compare import Difference, recording_differences

#: How often a kernel is asked again before a difference counts.
_AGAIN = 2


def profile_for(scenario: Scenario, kernel: str, profile: str | None = None) -> str:
    """What an engine runs under beside a kernel: as told, else as that kernel is."""
    name = profile or scenario.machine.profile
    if name is not None:
        return profiles.find(name).name
    found = profiles.for_release(kernel)
    if found is None:
        raise InputError(
            f"no profile is like kernel {kernel}, expected --profile with one of"
            f" {', '.join(profiles.names())}"
        )
    return found.name


def against(
    scenario: Scenario,
    engine: str,
    recorded: dict[str, Any],
    *,
    profile: str | None = None,
    unstable: list[str] | None = None,
) -> list[Difference]:
    """Where an engine says something else than the kernel did; a crash of it is a difference."""
    name = profile_for(scenario, recorded["kernel"], profile)
    try:
        answer = noise.placed(run(scenario, engine, profile=name))
    except PyksmError:
        raise
    except Exception as error:  # whatever it is, it is a finding
        return [Difference("/crash", f"{type(error).__name__}: {error}", "no crash")]
    lingering = noise.lingering(scenario, recorded)
    return recording_differences(
        answer, noise.placed(recorded), unstable=unstable or (), lingering=lingering
    )


def examine(
    scenario: Scenario, engine: str, recorder: Recorder, profile: str | None = None
) -> list[Difference]:
    """The same with a kernel at hand: what differs is only believed after asking it again."""
    recorded = recorder.record(scenario)
    found = against(scenario, engine, recorded, profile=profile)
    if not found:
        return []
    answers = [recorded, *(recorder.record(scenario) for _ in range(_AGAIN))]
    unstable = noise.unstable(answers)
    return against(scenario, engine, recorded, profile=profile, unstable=unstable)
