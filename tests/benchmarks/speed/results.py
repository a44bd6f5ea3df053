"""What was measured, on what, and how it is kept."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

from .contenders import CONTENDERS, Contender
from .environment import PEERS
from .measures import Figures


@dataclass
class Runs:
    """Of one contender in one workload all rounds, and what went wrong if something did."""

    figures: list[Figures] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def values(self, name: str) -> list[float]:
        return [each[name] for each in self.figures if name in each]

    def median(self, name: str) -> float | None:
        values = self.values(name)
        return statistics.median(values) if values else None


# By the name of the workload, then by contender.
Results = dict[str, dict[Contender, Runs]]


@dataclass(frozen=True)
class Report:
    """
    A run, or several that complete one another.

    Args:
        about: When, with what and on what it was measured.

        commands: That measured it.
    """

    about: str
    commands: list[str]
    results: Results

    def dump(self) -> str:
        """Return it as JSON, for ``load_reports()``."""
        rows = [
            {"workload": workload, "name": each.name, "broker": each.broker, **asdict(runs)}
            for workload, own in self.results.items()
            for each, runs in own.items()
        ]
        return json.dumps({"about": self.about, "commands": self.commands, "rows": rows}, indent=1)

    def of(self, workload: str, broker: str) -> dict[Contender, Runs]:
        own = self.results.get(workload, {})
        return {each: runs for each, runs in own.items() if each.broker == broker}

    def median(self, workload: str, broker: str, name: str, figure: str) -> float | None:
        for each, runs in self.of(workload, broker).items():
            if each.name == name:
                return runs.median(figure)
        return None


def load_reports(files: Sequence[Path]) -> Report:
    """Put several runs together; the rounds of who is in more of them add up."""
    known = {(each.name, each.broker): each for each in CONTENDERS}
    about, commands = "", []
    results: Results = {}
    for file in files:
        kept = json.loads(file.read_text())
        about = kept["about"]
        commands += kept["commands"]
        for row in kept["rows"]:
            contender = known[row["name"], row["broker"]]
            runs = results.setdefault(row["workload"], {}).setdefault(contender, Runs())
            runs.figures += row["figures"]
            runs.failures += row["failures"]
    return Report(about, commands, results)


def describe(versions: Mapping[str, str], size: int) -> str:
    """Return when, with what and on what the figures are measured."""
    pinned = [line for line in PEERS.read_text().splitlines() if line and line[0] != "#"]
    return "\n".join(
        [
            f"Measured on {date.today():%-d %B %Y} with Python {platform.python_version()}, "
            f"{', '.join(versions.values())}, on {os.cpu_count()} cores ({_processor()}), "
            f"{platform.system()} {platform.release()}.",
            f"django_actors {_version()}; {', '.join(pinned)}.",
            f"Messages of a full drain: {size:,}.",
        ]
    )


def _version() -> str:
    from django_actors import __version__

    return __version__


def _processor() -> str:
    with open("/proc/cpuinfo") as lines:
        return next((line.split(": ")[1].strip() for line in lines if "model name" in line), "?")
