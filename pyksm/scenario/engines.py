"""Engines by name, and the machine that a scenario asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pyksm import profiles
from pyksm.engine import SWITCHES, Config, Engine
from pyksm.errors import InputError, MachineError
from pyksm.scenario.statements import Machine

Factory = Callable[[Config], Engine]

NAMES = ("core", "oracle")
#: What commands that compare engines say of their option.
HELP = (
    "Two or more. core+all: the core, every short cut taken; +computed, +reference, +threads: one."
)
#: The build of the core that runs tasks and has the museum's bugs.
TASKS = "core+tasks"
#: Not one of them: a real kernel, which :mod:`pyksm.recorder` asks.
KERNEL = "kernel"


def _core(config: Config) -> Engine:
    from pyksm.core import Core  # the extension is only needed where it is asked for

    return Core(config)


def _tasks(config: Config) -> Engine:
    from pyksm.tasks.core import TasksCore

    return TasksCore(config)


def _oracle(config: Config) -> Engine:
    from pyksm.oracle import Oracle

    return Oracle(config)


def _variant(**how: Any) -> Factory:
    return lambda config: _core(replace(config, **how))


#: The core in each of its ways to do the same (:class:`Config`), known by name for comparisons.
VARIANTS: dict[str, Factory] = {
    "core+computed": _variant(walk="computed"),
    "core+reference": _variant(transfer="reference"),
    "core+threads": _variant(threads=2),
    "core+all": _variant(walk="computed", transfer="reference", threads=2),
    TASKS: _tasks,
}

_FACTORIES: dict[str, Factory] = {"core": _core, "oracle": _oracle, **VARIANTS}


def factory(engine: str) -> Factory:
    """The engine of that name; :class:`InputError` names what is known."""
    if engine == KERNEL:
        raise InputError("engine 'kernel' is no model, expected core or oracle here")
    if engine not in _FACTORIES:
        others = ", ".join(VARIANTS)
        raise InputError(
            f"engine {engine!r} is not known, expected {' or '.join(NAMES)} (or {others})"
        )
    return _FACTORIES[engine]


def config(machine: Machine, profile: str | None) -> Config:
    """What ``machine`` and a profile from outside, which goes first, ask for."""
    if machine.frames < machine.nodes:
        asked = f"machine nodes={machine.nodes} frames={machine.frames}"
        raise InputError(f"{asked}: expected at least a frame for each node")
    name = profile or machine.profile or profiles.DEFAULT
    return Config(
        nodes=machine.nodes,
        frames=machine.frames,
        profile=profiles.find(name).name,
        policy=machine.policy,
        switches=frozenset(machine.bugs) & set(SWITCHES),
        bugs=frozenset(machine.bugs) - set(SWITCHES),
        agent_pages=machine.agents,
        on=frozenset(machine.on),
        off=frozenset(machine.off),
    )


def build(engine: str | Factory, wanted: Config, *, tasks: bool = False) -> Engine:
    """A fresh machine; :class:`InputError` where that machine cannot be.

    ``tasks``: for a scenario that has some; the other engines than the core run them in order.
    """
    if tasks and engine == "core":
        engine = TASKS
    if wanted.bugs:
        if engine not in ("core", TASKS):
            bug = min(wanted.bugs)
            raise InputError(
                f"bug {bug}: only the core has the museum's bugs, expected engine core"
            )
        engine = TASKS
    make = factory(engine) if isinstance(engine, str) else engine
    try:
        return make(wanted)
    except (MachineError, MemoryError) as error:
        asked = f"nodes={wanted.nodes} frames={wanted.frames} profile={wanted.profile}"
        raise InputError(f"a machine with {asked} cannot be made: {error}") from None
