"""The page of the documents that tells the figures: what stands in it between two marks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from .contenders import BROKERS, FLOOR, OURS
from .environment import ROOT
from .goals import Verdict, best_peer, compare_peers, judge
from .results import Report
from .tables import TITLES, compare, format_ratio, kept, make_details, make_rows
from .workloads import WORKLOADS

PAGE = ROOT / "docs" / "explanation" / "performance.md"

# The rows of the first table: workload, figure, and what it is called there.
SUMMARY = [
    ("drain", "rate", "drain, 2 × 8 threads, messages a second"),
    ("drain_one", "rate", "drain, 1 × 8 threads, messages a second"),
    ("drain", "cpu_us", "worker CPU a message, µs"),
    ("enqueue", "one_by_one", "`send()`, a second"),
    ("enqueue", "threads", "`send()` from 8 threads, a second"),
    ("enqueue", "batches", "`send_many()` by 100, messages a second"),
    ("latency", "p50", "latency of an idle worker, p50, ms"),
    ("latency", "p99", "latency of an idle worker, p99, ms"),
    ("waiting", "share", "messages that wait 10 ms, % of the ideal"),
    ("computing", "share", "messages that compute, % of the cores"),
    ("delayed", "p99", "delayed messages, lateness p99, ms"),
    ("idle", "boot_s", "boot to first message, s"),
    ("idle", "memory_mb", "memory of idle workers, MB"),
    ("idle", "idle_percent", "CPU of idle workers, % of a core"),
]
# Those that tell what is left of ours when there is more: workload, figure, variant, name.
LEFT = [
    ("far", "rate", "far", "drain beside 100,000 that are due tomorrow"),
    ("backlog", "rate", "1000000", "drain with 1,000,000 behind, of that with 1,000"),
    ("backlog", "one_by_one", "1000000", "`send()` to 1,000,000, of that to 1,000"),
    ("backlog", "batches", "1000000", "`send_many()` to 1,000,000, of that to 1,000"),
]


def write_page(report: Report, page: Path = PAGE) -> None:
    """Put the figures in their places on the page; what is written around them stays."""
    text = page.read_text()
    for name, block in make_blocks(report).items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found and found_end):
            raise SystemExit(f"{page} has no place for its {name}: {begin} and {end}")
        text = f"{before}{begin}\n{block}\n{end}{after}"
    page.write_text(text)


def make_blocks(report: Report) -> dict[str, str]:
    """Return what stands on the page, by the name of its place."""
    return {
        "digest": make_digest(report),
        "goals": make_goals(report),
        "details": make_details(report),
    }


def make_digest(report: Report) -> str:
    """Return what a reader wants to know first: a table, what is lost, and the goals."""
    parts = [
        report.about,
        "```console\n" + "\n".join(f"$ {each}" for each in report.commands) + "\n```",
        "\n".join(_summary(report)),
        *_losses(report),
        *_missed(report),
    ]
    return "\n\n".join(part for part in parts if part)


def _summary(report: Report) -> list[str]:
    rows = [["", *TITLES.values()]]
    for workload, figure, title in SUMMARY:
        rows.append([title, *(_cell(report, broker, workload, figure) for broker in BROKERS)])
        if (workload, figure) == ("drain", "rate"):
            cells = [_beside_floor(report, broker) for broker in BROKERS]
            rows.append(["— of the bare loop's", *cells])
    for workload, figure, variant, title in LEFT:
        cells = [_left(report, broker, workload, figure, variant) for broker in BROKERS]
        rows.append([title, *cells])
    return make_rows([row for row in rows if any(row[1:])])


def _cell(report: Report, broker: str, workload: str, figure: str) -> str:
    value = report.median(workload, broker, OURS, figure)
    if value is None:
        return ""
    text = f"{value:,.{WORKLOADS[workload].figures[figure].digits}f}"
    best = best_peer(report, broker, workload, figure)
    if best is None:
        return text
    name, ratio = best
    compared = f"{text} ({format_ratio(ratio)} {name})"
    return f"**{compared}**" if ratio < 1 else compared


def _beside_floor(report: Report, broker: str) -> str:
    medians = [report.median("drain", broker, name, "rate") for name in (OURS, FLOOR)]
    return format_ratio(compare(WORKLOADS["drain"].figures["rate"], *medians))


def _left(report: Report, broker: str, workload: str, figure: str, variant: str) -> str:
    first = next(iter(WORKLOADS[workload].variants))
    for each, runs in report.of(workload, broker).items():
        if each.name == OURS and (ratio := kept(runs, figure, variant, first)) is not None:
            return f"{100 * ratio:.0f} %"
    return ""


def _losses(report: Report) -> Iterator[str]:
    lines = []
    for workload, figure, title in SUMMARY:
        lost = [
            f"{TITLES[broker]} to {', '.join(names)}"
            for broker in BROKERS
            if (names := list(_lost_to(report, broker, workload, figure)))
        ]
        if lost:
            lines.append(f"- {title}: {'; '.join(lost)}")
    if lines:
        yield "**Lost** to (a star: the rounds of both overlap):"
        yield "\n".join(lines)
    else:
        yield "No peer was ahead in any of these."


def _lost_to(report: Report, broker: str, workload: str, figure: str) -> Iterator[str]:
    own = report.of(workload, broker)
    runs_of = {each.name: runs for each, runs in own.items()}
    counterpart_of = {each.name: each.counterpart for each in own}
    for name, ratio in compare_peers(report, broker, workload, figure):
        if ratio < 1:
            ours = runs_of[counterpart_of[name]]
            mine, others = ours.values(figure), runs_of[name].values(figure)
            close = min(mine) <= max(others) and min(others) <= max(mine)
            yield f"{name} ({format_ratio(ratio)}{'*' if close else ''})"


def _missed(report: Report) -> Iterator[str]:
    verdicts = list(judge(report))
    missed = [each for each in verdicts if not each.reached]
    if verdicts:
        yield f"**Goals**: {len(verdicts) - len(missed)} of {len(verdicts)} were reached."
    if missed:
        yield "Not reached were:"
        yield _verdict_table(missed)


def make_goals(report: Report) -> str:
    """Return the goals that were reached; the digest tells the others."""
    return _verdict_table([each for each in judge(report) if each.reached])


def _verdict_table(verdicts: Iterable[Verdict]) -> str:
    rows = [[each.what, each.asked, each.measured] for each in verdicts]
    return "\n".join(make_rows([["figure", "goal", "measured"], *rows], words=3))
