"""The Markdown of a run: a table for each workload and broker, and what it was measured on."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version

from .contenders import OURS, Contender
from .environment import PEERS
from .workloads import Figure, Figures, Workload

# Of a contender all rounds, or why there are none.
Result = list[Figures] | str


def describe_run(versions: Mapping[str, str], size: int, command: str) -> str:
    """Return when, with what and on what the figures were measured."""
    pinned = [line for line in PEERS.read_text().splitlines() if line and line[0] != "#"]
    lines = [
        f"Measured on {date.today():%-d %B %Y} with Python {platform.python_version()}, "
        f"{', '.join(versions.values())}, on {os.cpu_count()} cores ({_processor()}), "
        f"{platform.system()} {platform.release()}.",
        f"django_actors {version_of_ours()}; {', '.join(pinned)}.",
        f"Messages of a full drain: {size:,}.",
        "",
        "```console",
        f"$ {command}",
        "```",
    ]
    return "\n".join(lines)


def version_of_ours() -> str:
    try:
        return version("django-actors")
    except Exception:  # not installed: run from a checkout
        from django_actors import __version__

        return __version__


def make_table(workload: Workload, results: Mapping[Contender, Result]) -> str:
    """
    Return a table of one broker's contenders: the best first, by the first figure.

    Each cell has the median, the lowest and highest round, and how ours compares: above 1 ours
    is better.
    """
    ours = next((runs for each, runs in results.items() if each.name == OURS), "")
    ran = {each: runs for each, runs in results.items() if runs and not isinstance(runs, str)}
    names = [n for n in workload.figures if any(n in run for runs in ran.values() for run in runs)]
    titles = [title for name in names for title in (workload.figures[name].title, "spread", "ours")]
    counts = any("count" in runs[0] for runs in ran.values())
    head = ["contender", "rounds", *(["messages"] if counts else []), *titles]
    lines = [_row(head), _row(["---"] + ["---:"] * (len(head) - 1))]
    for contender in sorted(ran, key=lambda each: _order(workload, names, ran[each])):
        cells = [contender.name, f"{len(ran[contender])}"]
        if counts:
            cells.append(f"{ran[contender][0]['count']:,.0f}")
        for name in names:
            cells += _cells(workload.figures[name], name, ran[contender], ours)
        lines.append(_row(cells))
    lines += ["", *_not_run(results)]
    return "\n".join(lines).rstrip() + "\n"


def _cells(
    figure: Figure, name: str, runs: Sequence[Figures], ours: Result
) -> tuple[str, str, str]:
    values = [run[name] for run in runs if name in run]
    if not values:
        return "–", "–", "–"
    median = statistics.median(values)
    spread = f"{min(values):,.{figure.digits}f} to {max(values):,.{figure.digits}f}"
    mine = [] if isinstance(ours, str) else [run[name] for run in ours if name in run]
    ratio = ""
    if mine and mine != values and median:
        own = statistics.median(mine)
        better = own / median if figure.more_is_better else median / (own or median)
        ratio = f"{better:.2f} ×" if better < 10 else f"{better:.0f} ×"
    return f"{median:,.{figure.digits}f}", spread, ratio


def _order(workload: Workload, names: Sequence[str], runs: Sequence[Figures]) -> float:
    if not names:
        return 0
    value = statistics.median(run[names[0]] for run in runs)
    return -value if workload.figures[names[0]].more_is_better else value


def _not_run(results: Mapping[Contender, Result]) -> list[str]:
    return [
        f"Not run: {each.name} ({runs.splitlines()[0] if isinstance(runs, str) else 'no time'})"
        for each, runs in results.items()
        if not runs or isinstance(runs, str)
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _processor() -> str:
    with open("/proc/cpuinfo") as lines:
        return next((line.split(": ")[1].strip() for line in lines if "model name" in line), "?")
