"""The group of commands, and what every command's failure looks like."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from pyksm.errors import PyksmError

FINE, FOUND, BAD = 0, 1, 2
_INTERRUPTED, _BROKEN_PIPE = 130, 141  # as a shell says SIGINT and SIGPIPE

#: Where each command is: a module with ``register(group: click.Group)`` that adds it.
MODULES = {
    "run": "pyksm.cli.scenario",
    "diff": "pyksm.cli.scenario",
    "fuzz": "pyksm.cli.fuzz",
    "record": "pyksm.cli.record",
    "swapoff": "pyksm.cli.targets",
    "estimate": "pyksm.cli.targets",
    "capture": "pyksm.cli.targets",
    "bench": "pyksm.cli.bench",
    "profiles": "pyksm.cli.profiles",
    "explore": "pyksm.cli.explore",
    "hunt": "pyksm.cli.explore",
    "bugs": "pyksm.cli.bugs",
}


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands and cmd_name in MODULES:
            importlib.import_module(MODULES[cmd_name]).register(self)
        return super().get_command(ctx, cmd_name)


def build() -> click.Group:
    """The whole command line."""

    # Without arguments click would print its help on stderr: more than the one line agreed on.
    @click.group(
        cls=Commands,
        context_settings={"help_option_names": ["-h", "--help"]},
        no_args_is_help=False,
    )
    @click.version_option(package_name="pyksm", prog_name="pyksm")
    def pyksm() -> None:
        """Linux KSM, anonymous rmap, swap and swapoff, as an executable model."""

    return pyksm


def main(args: Sequence[str] | None = None) -> None:
    """Console entry point: runs the command and exits with its status."""
    code = status(sys.argv[1:] if args is None else list(args))
    try:
        sys.stdout.flush()
    except OSError:  # complained of already; Python would try once more at exit
        _hang_up()
    sys.exit(code)


def status(args: Sequence[str]) -> int:
    """Run the command line ``args`` and give its exit status; errors are one line on stderr."""
    try:
        result = build().main(list(args), prog_name="pyksm", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else FINE
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except click.exceptions.Exit as wanted:
        return wanted.exit_code
    except click.UsageError as error:
        return complain(_usage(error))
    except click.ClickException as error:
        return complain(error.format_message())
    except BrokenPipeError:
        return _hang_up()
    except (PyksmError, OSError) as error:
        return complain(str(error))
    except (MemoryError, RecursionError) as error:
        return complain(f"out of resources: {error or type(error).__name__}")
    except SystemExit as error:  # click's own way out of a broken pipe
        return _hang_up() if error.code == 1 else BAD


def _usage(error: click.UsageError) -> str:
    """What is wrong, in which command, and where to read what is right."""
    where = error.ctx.command_path if error.ctx else "pyksm"
    message = error.format_message().rstrip(".")
    if isinstance(error, click.NoSuchOption) or error.ctx is None or error.ctx.parent is not None:
        return f"{message}, expected what {where} --help says"
    group = error.ctx.command
    known = ", ".join(group.list_commands(error.ctx)) if isinstance(group, click.Group) else ""
    return f"{message}, expected one of {known}"


def complain(message: str) -> int:
    """One line on standard error, and the status for bad usage or input."""
    print(f"pyksm: {' '.join(message.split())}", file=sys.stderr)
    return BAD


def _hang_up() -> int:
    """Nobody reads standard output any more: say nothing, and nothing at exit either."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
    return _BROKEN_PIPE
