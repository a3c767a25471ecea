"""Timelines as one HTML page that needs nothing else: no script, no font, no picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from pyksm.tasks.run import Recording
from pyksm.tasks.timeline import Change, Row, ended, locks_of, rows, said, said_of, schedule_text

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --faint: #6b6b6b;
  --line: #d7d7d7; --bad: #b00020; --soft: #f4f4f4;
  --t0: #00708c; --t1: #8a6100; --t2: #9b2f8f; --t3: #2f7a2f;
  --t4: #2b53b5; --t5: #b0392b; --t6: #46706f; --t7: #6d6a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #161616; --faint: #9a9a9a;
  --line: #3a3a3a; --bad: #ff7a85; --soft: #222;
  --t0: #5fd0ea; --t1: #e3b34c; --t2: #e68fdc; --t3: #7fd07f;
  --t4: #8fb0ff; --t5: #ff9a8c; --t6: #9fd0cf; --t7: #d5d07a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 90rem; padding: 1rem; background: var(--paper);
  color: var(--ink); font: 15px/1.4 system-ui, sans-serif; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
code, pre, td, th { font-family: ui-monospace, monospace; font-size: 13px; }
pre { overflow-x: auto; background: var(--soft); padding: .6rem; }
ul { padding-left: 1.2rem; } .bad { color: var(--bad); font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .5rem; }
thead th { border-bottom: 2px solid var(--line); }
tbody tr { border-top: 1px solid var(--line); }
td.lane { border-left: 3px solid transparent; min-width: 6rem; }
td.idle { border-left: 1px dotted var(--line); }
td.step { color: var(--faint); white-space: nowrap; }
.begins { display: block; font-weight: 700; } .who { font-weight: 600; }
.was { color: var(--faint); } .switch::before { content: "\\25B6  "; }
summary { cursor: pointer; } details ol { margin: .2rem 0; padding-left: 1.5rem; }
@media (max-width: 46rem) {
  thead, td.idle { display: none; }
  table, tbody, tr, td { display: block; width: 100%; }
  tbody tr { padding: .3rem 0; } td { padding: .1rem .5rem; overflow-wrap: anywhere; }
  td.lane::before { content: attr(data-task) ": "; font-weight: 700; }
  td.locks:not(:empty)::before { content: "locks: "; color: var(--faint); }
}
"""
_LANES = "".join(
    f".t{k} {{ color: var(--t{k}); }} td.lane.t{k} {{ border-left-color: var(--t{k}); }}\n"
    for k in range(8)
)


def page(
    recordings: Sequence[Recording],
    *,
    title: str,
    scenario: str = "",
    wrong: Sequence[str] = (),
    every: bool = False,
) -> str:
    """The whole page. ``scenario``: its text; ``wrong``: what is wrong with what happened."""
    lines = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{_LANES}</style>\n</head>\n<body>",
        f"<h1>{escape(title)}</h1>",
    ]
    if wrong:
        items = "".join(f'<li class="bad">{escape(each)}</li>' for each in wrong)
        lines.append(f"<ul>{items}</ul>")
    for recording in recordings:
        lines += _group(recording, every)
    if scenario:
        lines.append(f"<h2>The scenario</h2>\n<pre>{escape(scenario)}</pre>")
    return "\n".join([*lines, "</body>\n</html>\n"])


def _group(recording: Recording, every: bool) -> Iterator[str]:
    names = recording.program.names
    yield f"<h2>Tasks {escape(', '.join(names))}</h2>"
    bad = "" if recording.end == "done" else ' class="bad"'
    yield f"<p{bad}>{escape(ended(recording))}</p>"
    yield f"<p>Replays with: <code>schedule {escape(schedule_text(recording))}</code></p>"
    if recording.watched:
        yield "<p>Pages before the first step:</p>\n<ul>"
        for page, seen in zip(recording.watched, recording.seen[0], strict=True):
            yield f"<li><code>{escape(page.name)}</code>: {escape(said(seen))}</li>"
        yield "</ul>"
    yield '<div class="wide"><table>\n<thead><tr><th>step</th>'
    yield "".join(f'<th class="t{k}">{escape(name)}</th>' for k, name in enumerate(names))
    yield "<th>locks held then</th><th>pages before and after</th></tr></thead>\n<tbody>"
    for row in rows(recording, every):
        yield _row(row, names)
    yield "</tbody></table></div>"


def _row(row: Row, names: Sequence[str]) -> str:
    steps = str(row.first) if row.count == 1 else f"{row.first}–{row.last}"
    cells = [f'<td class="step">{steps}</td>']
    for task, name in enumerate(names):
        if task == row.task:
            attributes = f'class="lane t{task}" data-task="{escape(name)}"'
            cells.append(f"<td {attributes}>{_lane(row)}</td>")
        else:
            cells.append('<td class="idle"></td>')
    held = [
        f'<span class="who t{names.index(who)}">{escape(who)}</span> {escape(what)}'
        for who, what in locks_of(row, names)
    ]
    unknown = "?" if row.locks is None else ""
    cells.append(f'<td class="locks">{"<br>".join(held) or unknown}</td>')
    changed = "".join(_change(each) for each in row.changes)
    cells.append(f'<td class="pages">{changed}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _change(change: Change) -> str:
    """What is different; before and after in full where one wants to know."""
    name = f'<span class="who">{escape(change.name)}</span>'
    short, before, after = map(escape, (said_of(change), said(change.before), said(change.after)))
    if short == f"{before} → {after}":
        return f"<div>{name} {short}</div>"
    full = f'<div><span class="was">{before}</span><br>{after}</div>'
    return f"<details><summary>{name} {short}</summary>{full}</details>"


def _lane(row: Row) -> str:
    begins = f'<span class="begins">{escape(row.statement)}</span>' if row.begins else ""
    switch = ' class="switch"' if row.preempts else ""
    first = f"<span{switch}>{escape(row.points[0])}</span>"
    if row.count == 1:
        return begins + first
    items = "".join(f"<li>{escape(point)}</li>" for point in row.points)
    last = escape(row.points[-1])
    summary = f"{first} … {last} ({row.count} steps)"
    return f"{begins}<details><summary>{summary}</summary><ol>{items}</ol></details>"
