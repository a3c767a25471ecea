"""The command line: ``pyksm COMMAND``.

Exit status everywhere: 0 done and fine, 1 done and something was found or differs, 2 bad usage or
input (one line on standard error). A module of commands has ``register(group)`` and a place in
:data:`pyksm.cli.group.MODULES`.
"""

from pyksm.cli.group import BAD, FINE, FOUND, MODULES, build, complain, main, status

__all__ = ["BAD", "FINE", "FOUND", "MODULES", "build", "complain", "main", "status"]
