"""What tasks did, as rows to be drawn: a lane a task, the locks held, pages before and after.

:func:`draw` draws them in a terminal, :mod:`pyksm.tasks.timeline_html` into a page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from pyksm.tasks.run import Recording, Seen, Taken

#: A colour a lane, as the terminal calls them.
COLOURS = ("cyan", "yellow", "magenta", "green", "blue", "red", "bright_cyan", "bright_yellow")

_GOLDEN_INVERSE = pow(0x9E3779B97F4A7C15, -1, 2**64)
_PTE_RW, _PTE_DIRTY = 1 << 1, 1 << 6


@dataclass(frozen=True)
class Change:
    """A page that a row changed."""

    name: str
    before: Seen
    after: Seen


@dataclass(frozen=True)
class Row:
    """Steps ``first`` to ``last`` (the first is 1) of one task in one statement. ``begins``: its
    task was in another statement before. ``preempts``: the task of the row before could have gone
    on. ``locks`` are held when they have been made; None where that is not known."""

    first: int
    last: int
    task: int
    statement: str
    begins: bool
    preempts: bool
    points: tuple[str, ...]
    locks: tuple[tuple[int, bool, str], ...] | None
    changes: tuple[Change, ...]

    @property
    def count(self) -> int:
        return self.last - self.first + 1


def rows(recording: Recording, every: bool = False) -> list[Row]:
    """A row a step, or one for all steps that a task makes until another one goes on, it comes to
    its next statement, or a page has changed."""
    statements = [
        [str(step.statement) for step in task for _ in step.ops] for task in recording.program.tasks
    ]
    made: list[Row] = []
    under_way: dict[int, str] = {}
    for first, last in _runs(recording, every):
        step = recording.trace[first]
        ops = statements[step.task]
        statement = ops[step.op] if step.op < len(ops) else ""
        made.append(
            Row(
                first + 1,
                last + 1,
                step.task,
                statement,
                under_way.get(step.task) != f"{step.op} {statement}",
                step.preempts,
                tuple(each.point for each in recording.trace[first : last + 1]),
                recording.trace[last].locks,
                _changes(recording, first, last),
            )
        )
        under_way[step.task] = f"{step.op} {statement}"
    return made


def _runs(recording: Recording, every: bool) -> Iterator[tuple[int, int]]:
    """First and last step of each row."""
    trace = recording.trace
    first = 0
    for index in range(1, len(trace) + 1):
        if (
            index == len(trace)
            or every
            or _place(trace[index]) != _place(trace[first])
            or _changes(recording, first, index - 1)
        ):
            yield first, index - 1
            first = index


def _place(step: Taken) -> tuple[int, int]:
    return step.task, step.op


def _changes(recording: Recording, first: int, last: int) -> tuple[Change, ...]:
    if last + 1 >= len(recording.seen):
        return ()
    pages = zip(recording.watched, recording.seen[first], recording.seen[last + 1], strict=True)
    return tuple(
        Change(page.name, before, after) for page, before, after in pages if before != after
    )


# ---- words ----


def said(seen: Seen) -> str:
    """A pte, its page and its slot in a few words."""
    nothing = {"": "no process", ".": "nothing mapped", "-": "a hole", "Z": "the zero page"}
    if seen.state in nothing:
        return nothing[seen.state]
    if seen.state == "S" and seen.slot < 0:
        return f"an entry of no area (0x{seen.pte:x})"
    return ", ".join(f"{name} {value}".rstrip() for name, value in _parts(seen).items())


def said_of(change: Change) -> str:
    """What is different, where it is the same page or slot; else all of both."""
    before, after = _parts(change.before), _parts(change.after)
    if _thing(change.before) != _thing(change.after) or not before:
        return f"{said(change.before)} → {said(change.after)}"
    words = []
    for name in [*before, *(name for name in after if name not in before)]:
        one, other = before.get(name), after.get(name)
        if one is None:
            words.append(f"+ {name} {other}".rstrip())
        elif other is None:
            words.append(f"- {name} {one}".rstrip())
        elif one != other:
            words.append(f"{name} {one or 'with its node'} → {other or 'with its node'}")
    return ", ".join(words)


def _thing(seen: Seen) -> tuple[str, int, int]:
    """What the pte leads to."""
    return (seen.state, seen.pfn, -1) if seen.state == "P" else (seen.state, seen.area, seen.slot)


def _parts(seen: Seen) -> dict[str, str]:
    """What there is to say, by name; nothing of what is neither a page nor a slot."""
    parts: dict[str, str] = {}
    if seen.state == "P":
        parts["frame"] = str(seen.pfn)
        parts["pte"] = "rw" if seen.pte & _PTE_RW else "ro"
        if seen.pte & _PTE_DIRTY:
            parts["pte dirty"] = ""
        parts["mapped"], parts["refs"] = str(seen.mapcount), str(seen.refs)
        if seen.ksm:
            parts["KSM"] = "" if seen.node else "without a node"
        if seen.word is not None:
            name, _, value = contents(seen.word).partition(" ")
            parts[name] = value
        parts |= dict.fromkeys(seen.flags, "")
    if seen.state in "PS" and seen.slot >= 0:
        parts["slot"], parts["count"] = f"{seen.area}:{seen.slot}", str(seen.count)
        if seen.cached and seen.state == "S":
            parts["cached"] = ""
    return parts


def contents(word: int) -> str:
    """What a page that begins so holds: pattern(V), as far as one can tell."""
    value = word * _GOLDEN_INVERSE % 2**64
    return f"pattern {value}" if value < 2**32 else f"begins 0x{word:016x}"


def locks_of(row: Row, names: Sequence[str]) -> list[tuple[str, str]]:
    """(task, lock) of what is held after a row; ``(shared)`` where others may have it too."""
    return [
        (names[task], what if alone else f"{what} (shared)")
        for task, alone, what in row.locks or ()
    ]


def ended(recording: Recording) -> str:
    """How it ended, in a line."""
    switches = recording.preemptions
    steps = f"{recording.steps} steps, {switches} preemption{'s' * (switches != 1)}"
    kept = len(recording.trace)
    if kept < recording.steps:
        steps += f", the first {kept} of them here"
    return f"{recording.end} after {steps}" + (f": {recording.text}" if recording.text else "")


def schedule_text(recording: Recording) -> str:
    """The schedule that replays it."""
    if recording.schedule is None:
        return "too long to be said"
    return " ".join(map(str, recording.schedule))


# ---- in a terminal ----


def draw(out: Console, recording: Recording, every: bool = False) -> None:
    """Draw it; every step with ``every``."""
    names = recording.program.names
    out.print(Text(f"tasks {', '.join(names)} (line {recording.line})", "bold"))
    for index, page in enumerate(recording.watched):
        out.print(Text(f"  {page.name}: {said(recording.seen[0][index])}"))
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("step", justify="right", no_wrap=True)
    for task, name in enumerate(names):
        table.add_column(Text(name, COLOURS[task]), overflow="fold", min_width=4)
    table.add_column("locks held then", overflow="fold")
    table.add_column("pages before and after", overflow="fold")
    for row in rows(recording, every):
        table.add_row(*_cells(row, names))
    out.print(table)
    style = "" if recording.end == "done" else "red"
    out.print(Text(ended(recording), style))
    for index, page in enumerate(recording.watched):
        if recording.seen[-1][index] != recording.seen[0][index]:
            out.print(Text(f"  {page.name}: {said(recording.seen[-1][index])}"))
    out.print(Text(f"schedule {schedule_text(recording)}"))


def _cells(row: Row, names: Sequence[str]) -> Iterator[RenderableType]:
    yield str(row.first) if row.count == 1 else f"{row.first}-{row.last}"
    for task in range(len(names)):
        yield _lane(row, task) if task == row.task else Text("│", "dim")
    held = [f"{name}: {what}" for name, what in locks_of(row, names)]
    yield Text("\n".join(held) if row.locks is not None else "?")
    yield Text("\n".join(f"{each.name}: {said_of(each)}" for each in row.changes))


def _lane(row: Row, task: int) -> Text:
    cell = Text()
    if row.begins:
        cell.append(f"{row.statement}\n", f"bold {COLOURS[task]}")
    mark = "▶ " if row.preempts else "● "
    cell.append(mark + row.points[0], COLOURS[task])
    if row.count > 1:
        between = f" … {row.count} steps … " if row.count > 2 else " … "
        cell.append(between + row.points[-1], COLOURS[task])
    return cell
