"""Plots of sweeps: time against ptes, both axes logarithmic, all series, the limits drawn in."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Any

from pyksm.bench.report import fits
from pyksm.bench.run import Results, Run
from pyksm.errors import InputError
from pyksm.scenario.parser import shown

SUFFIXES = (".svg", ".png", ".pdf")

_STYLES = ("--", "-.", ":", (0, (8, 2, 1, 2, 1, 2)))
_MARKERS = "osv^D*<>"


def check(path: str) -> None:
    """InputError now for what would fail when all the work is done."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"--plot {shown(path)}: expected a name that ends in {', '.join(SUFFIXES)}"
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("--plot: matplotlib is not installed (pip install 'pyksm[plot]')")
    if os.path.isdir(path):
        raise InputError(f"--plot {shown(path)}: a directory, expected a file")
    try:
        fd, probe = tempfile.mkstemp(prefix=".pyksm-", dir=os.path.dirname(path) or ".")
    except OSError as error:
        raise InputError(
            f"--plot {shown(path)}: {error.strerror}, expected a place to write"
        ) from None
    os.close(fd)
    os.unlink(probe)


def draw(results: Results, path: str) -> None:
    """The plot, under its name when it is whole."""
    with contextlib.suppress(KeyError):  # what the user has set is for a terminal of hers
        del os.environ["MPLBACKEND"]
    import matplotlib

    matplotlib.use("agg")
    # The same plot, the same file; and text that stays text.
    matplotlib.rcParams.update({"svg.hashsalt": "pyksm", "svg.fonttype": "none"})
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.add_subplot()
    _series(axes, results)
    _limits(axes, results)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("ptes")
    axes.set_ylabel("seconds")
    axes.set_title(_title(results))
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(fontsize="small")
    suffix = os.path.splitext(path)[1].lower()
    metadata = {"Date": None} if suffix == ".svg" else {}
    fd, partial = tempfile.mkstemp(prefix=".pyksm-", dir=os.path.dirname(path) or ".")
    try:
        with os.fdopen(fd, "wb") as file:
            figure.savefig(file, format=suffix[1:], metadata=metadata, dpi=150)
        os.chmod(partial, 0o666 & ~_umask())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(partial).unlink()
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _title(results: Results) -> str:
    settings = results.settings
    shape = settings.shapes[0]
    what = f"pyksm bench {settings.what}: {shape.kind}, {shape.procs} process"
    return f"{what}{'es' if shape.procs > 1 else ''}, {shape.page_bytes}-byte pages"


def _series(axes: Any, results: Results) -> None:
    """A line for each series and part, with the exponent in the legend and bars from min to max."""
    exponents = {(series, part): fit for series, part, of, fit in fits(results) if of == "ns"}
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in results.runs:
        grouped.setdefault((run.way.label, run.part), []).append(run)
    for k, ((series, part), runs) in enumerate(grouped.items()):
        sizes = [run.shape.ptes for run in runs]
        seconds = [run.cost(run.ns) / 1e9 for run in runs]
        low = [run.cost(run.ns - min(s.ns for s in run.samples)) / 1e9 for run in runs]
        high = [run.cost(max(s.ns for s in run.samples) - run.ns) / 1e9 for run in runs]
        label = series if part == results.settings.what else f"{series}, {part}"
        if fit := exponents.get((series, part)):
            label += f" (n^{fit})"
        style = {"marker": _MARKERS[k % len(_MARKERS)], "ms": 4, "capsize": 2, "lw": 1.2}
        axes.errorbar(sizes, seconds, yerr=[low, high], label=label, **style)


def _limits(axes: Any, results: Results) -> None:
    """What moving and reading alone would take: of every pte once, and of all for each."""
    limits = results.limits
    if limits is None:
        return
    sizes = sorted({run.shape.ptes for run in results.runs})
    lines = [
        (f"memcpy of a page a pte ({limits.page_bytes} bytes)", limits.memcpy_ns_per_page, 1),
        ("a cache miss a pte", limits.chase_ns_per_step, 1),
        ("streaming read of the ptes, once", 8 * limits.read_ns_per_byte, 1),
    ]
    compared = "unuse_pte_compared"
    literal = [f for _, _, of, f in fits(results) if of == compared and f.exponent > 1.5]
    if literal:
        lines.append(("streaming read of half the ptes for each", 4 * limits.read_ns_per_byte, 2))
    for style, (label, ns, power) in zip(_STYLES, lines, strict=False):
        seconds = [ns * n**power / 1e9 for n in sizes]
        axes.plot(sizes, seconds, linestyle=style, color="black", linewidth=1, label=label)
