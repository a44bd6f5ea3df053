"""The tables of a workload, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from .contenders import BROKERS, OURS, Contender
from .results import Report, Runs
from .workloads import WORKLOADS, Figure, Workload

TITLES = dict(zip(BROKERS, ("Redis", "RabbitMQ", "PostgreSQL", "SQLite"), strict=True))


def make_details(report: Report) -> str:
    """Return all figures of all contenders, a part for each workload."""
    parts = []
    for name, workload in WORKLOADS.items():
        tables = [
            f"**{TITLES[broker]}**\n\n{make_table(workload, own)}".rstrip()
            for broker in BROKERS
            if (own := report.of(name, broker))
        ]
        if tables:
            parts += [f"### {workload.title}", *tables]
    return "\n\n".join(parts)


def make_table(workload: Workload, results: Mapping[Contender, Runs]) -> str:
    """
    Return a table of one broker's contenders: the best first, by the first figure.

    Each row has the median, the lowest and highest round, and how ours compares: above 1 ours is
    better. Where the workload has variants each is a row, which is compared with the first one.
    """
    ran = {each: runs for each, runs in results.items() if runs.figures}
    make = _variant_rows if workload.variants else _rows
    lines = [*make(workload, ran), "", *_failures(results)]
    return "\n".join(lines).rstrip() + "\n"


def _rows(workload: Workload, ran: Mapping[Contender, Runs]) -> list[str]:
    runs_of = {each.name: runs for each, runs in ran.items()}
    names = [name for name in workload.figures if any(runs.values(name) for runs in ran.values())]
    counts = any(runs.values("count") for runs in ran.values())
    titles = [title for name in names for title in (workload.figures[name].title, "spread", "ours")]
    rows = [["contender", "rounds", *(["messages"] if counts else []), *titles]]
    for contender in sorted(ran, key=lambda each: _order(workload, names, ran[each])):
        runs = ran[contender]
        ours = runs_of.get(contender.counterpart, Runs())
        row = [contender.name, f"{len(runs.figures)}"]
        if counts:
            row.append(f"{runs.figures[0]['count']:,.0f}")
        for name in names:
            figure = workload.figures[name]
            is_ours = contender.name == OURS
            ratio = None if is_ours else compare(figure, ours.median(name), runs.median(name))
            row += [*format_runs(figure, runs.values(name)), format_ratio(ratio)]
        rows.append(row)
    return make_rows(rows)


def _variant_rows(workload: Workload, ran: Mapping[Contender, Runs]) -> list[str]:
    first = next(iter(workload.variants))
    titles = [
        title
        for figure in workload.figures.values()
        for title in (figure.title, "spread", "of the first")
    ]
    rows = [["contender", "rounds", "others", *titles]]
    for contender, runs in ran.items():
        for variant, label in workload.variants.items():
            row = [contender.name, f"{len(runs.figures)}", label]
            for name, figure in workload.figures.items():
                ratio = None if variant == first else kept(runs, name, variant, first)
                cells = format_runs(figure, runs.values(f"{name}@{variant}"))
                row += [*cells, format_ratio(ratio)]
            rows.append(row)
    return make_rows(rows)


def compare(figure: Figure, ours: float | None, other: float | None) -> float | None:
    """Return how many times better ours is; below 1 it is worse."""
    if ours is None or other is None:
        return None
    better, worse = (ours, other) if figure.more_is_better else (other, ours)
    return better / worse if worse else None


def kept(runs: Runs, name: str, variant: str, first: str) -> float | None:
    """Return the median of what a variant had of the first one in the same round."""
    pairs = zip(runs.values(f"{name}@{variant}"), runs.values(f"{name}@{first}"), strict=True)
    ratios = Runs([{name: one / other} for one, other in pairs if other])
    return ratios.median(name)


def format_runs(figure: Figure, values: Sequence[float]) -> tuple[str, str]:
    """Return the median and the spread."""
    if not values:
        return "–", "–"
    median, lowest, highest = statistics.median(values), min(values), max(values)
    spread = f"{lowest:,.{figure.digits}f} to {highest:,.{figure.digits}f}"
    return f"{median:,.{figure.digits}f}", spread if len(values) > 1 else "–"


def format_ratio(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.2f} ×" if ratio < 10 else f"{ratio:.0f} ×"


def make_rows(rows: Sequence[Sequence[str]], *, words: int = 1) -> list[str]:
    """Return the lines of a table; the first row is its head, the first columns are words."""
    head, *others = rows
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return [f"| {' | '.join(row)} |" for row in (head, rule, *others)]


def _order(workload: Workload, names: Sequence[str], runs: Runs) -> float:
    value = runs.median(names[0]) if names else None
    if value is None:
        return 0
    return -value if workload.figures[names[0]].more_is_better else value


def _failures(results: Mapping[Contender, Runs]) -> Iterable[str]:
    for contender, runs in results.items():
        if runs.failures:
            what = "failed once" if runs.figures else "not run"
            yield f"{contender.name}: {what} ({runs.failures[-1].splitlines()[0]})."
