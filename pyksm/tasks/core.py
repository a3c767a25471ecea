"""The engine ``core+tasks``: :class:`pyksm.core.Core` on the build of the core that runs tasks.

Its C text is the same; what the plain build compiles away (locks, schedule points, the museum's
bugs) is there, and each access to memory is looked at. :mod:`pyksm.core` is about one build, so it
is loaded once more for this one.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pyksm.core

_NAME = "pyksm.tasks._core_of_tasks"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location(_NAME, pyksm.core.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__["_BUILD"] = "pyksm._tasks"
    sys.modules[_NAME] = module
    spec.loader.exec_module(module)
    return module


_module = _load()
ffi: Any = _module.ffi
lib: Any = _module.lib
#: ``struct pyksm_config *`` of a :class:`pyksm.engine.Config`.
c_config: Any = _module._c_config

if TYPE_CHECKING:
    from pyksm.core import Core
else:
    Core = _module.Core


class TasksCore(Core):
    """One machine of the core that runs tasks."""

    runs_tasks = True

    def run_tasks(self, *args: Any) -> None:
        """``pyksm_run_tasks()``, its arguments after the machine; see :mod:`pyksm.tasks.run`."""
        self._call("tasks", lib.pyksm_run_tasks, *args)
