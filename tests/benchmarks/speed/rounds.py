"""Run the contenders in turn, round by round."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .contenders import Contender, Crew
from .contest import Contest, Failed
from .measures import Figures
from .results import Results, Runs
from .servers import Servers
from .workloads import WORKLOADS


@dataclass(frozen=True)
class Visit:
    """Workloads that one contender does one after the other, on the same workers."""

    contender: Contender
    crew: Crew
    workloads: tuple[str, ...]


def plan_round(
    number: int, contenders: Sequence[Contender], rounds: Mapping[str, int]
) -> Iterator[Visit]:
    """
    Say who does what in a round; the rounds count from 1.

    Args:
        rounds: How many each workload has; 0 for as many as it has by default.
    """
    for contender in contenders:
        due = [
            (name, WORKLOADS[name])
            for name in WORKLOADS
            if name in rounds
            and WORKLOADS[name].takes(contender)
            and number <= (rounds[name] or WORKLOADS[name].rounds_of(contender))
        ]
        shared: dict[tuple[Crew, str], list[str]] = {}
        for name, workload in due:
            key = workload.crew(contender), name if workload.alone else ""
            shared.setdefault(key, []).append(name)
        for (crew, _), names in shared.items():
            yield Visit(contender, crew, tuple(names))


def run_rounds(
    rounds: Mapping[str, int],
    contenders: Sequence[Contender],
    python: Path,
    servers: Servers,
    size: int,
) -> Results:
    """Run all rounds, the contenders one after the other; who fails twice is left out."""
    results: Results = {name: {} for name in rounds}
    try:
        for number in itertools.count(1):
            visits = list(plan_round(number, contenders, rounds))
            if not visits:
                break
            for visit in visits:
                for name, outcome in _run_visit(visit, python, servers, size, results):
                    _keep(results, name, visit.contender, outcome)
    except KeyboardInterrupt:
        print("Interrupted; these are the rounds so far.", file=sys.stderr)
    return results


def _run_visit(
    visit: Visit, python: Path, servers: Servers, size: int, results: Results
) -> Iterator[tuple[str, Figures | str]]:
    contender = visit.contender
    waiting = [name for name in visit.workloads if _may_run(results, name, contender)]
    if contender.broker in servers.missing:
        yield from ((name, servers.missing[contender.broker]) for name in waiting)
        return
    while waiting:
        name = waiting[0]
        try:
            with Contest(contender, python, servers, visit.crew) as contest:
                for name in [*waiting]:
                    contest.forget()
                    began = time.monotonic()
                    figures = WORKLOADS[name].run(contest, size)
                    waiting.remove(name)
                    _log(name, contender, time.monotonic() - began, figures)
                    yield name, figures
        except Failed as failure:
            waiting.remove(name)
            yield name, str(failure)
        except Exception as error:  # a server's or a client's; the others go on
            waiting.remove(name)
            yield name, f"{contender.title}: {type(error).__name__}: {error}"


def _may_run(results: Results, name: str, contender: Contender) -> bool:
    runs = results[name].get(contender)
    return runs is None or len(runs.failures) < 2


def _keep(results: Results, name: str, contender: Contender, outcome: Figures | str) -> None:
    runs = results[name].setdefault(contender, Runs())
    if isinstance(outcome, str):
        runs.failures.append(outcome)
        print(f"{name}: {outcome}", file=sys.stderr, flush=True)
    else:
        runs.figures.append(outcome)


def _log(name: str, contender: Contender, elapsed_s: float, figures: Figures) -> None:
    numbers = ", ".join(f"{key} {value:,.1f}" for key, value in figures.items())
    line = f"{name}, {contender.title}, in {elapsed_s:.1f} s: {numbers}"
    print(line, file=sys.stderr, flush=True)
