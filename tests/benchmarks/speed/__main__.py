"""The command: prepare, run the contenders interleaved, print the tables."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .contenders import BROKERS, CONTENDERS, FLOOR, Contender
from .contest import Contest, Failed
from .environment import ROOT, make_environment
from .report import Result, describe_run, make_table
from .servers import Servers
from .workloads import WORKLOADS, Figures, Workload

PAGE = ROOT / "docs" / "explanation" / "performance.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
TITLES = dict(zip(BROKERS, ("Redis", "RabbitMQ", "PostgreSQL", "SQLite"), strict=True))


def main() -> None:
    options = parse_arguments()
    python = make_environment(options.environment)
    command = f"python -m tests.benchmarks.speed {' '.join(sys.argv[1:])}".strip()
    parts: list[str] = []
    with Servers(options.brokers) as servers:
        for name in options.workloads:
            workload = WORKLOADS[name]
            results = run_rounds(workload, python, servers, options)
            parts.append(f"### {workload.title}")
            for broker in options.brokers:
                own = {each: runs for each, runs in results.items() if each.broker == broker}
                parts.append(f"**{TITLES[broker]}**\n\n{make_table(workload, own)}".rstrip())
        parts.insert(0, describe_run(servers.versions, options.messages, command))
    text = "\n\n".join(parts) + "\n"
    print(text)
    if options.write:
        write_page(text)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.speed",
        description="Measure the engine beside its peers, in one run on the same servers.",
    )
    parser.add_argument("--workloads", type=_names(WORKLOADS), default=["drain"], metavar="A,B")
    parser.add_argument("--brokers", type=_names(BROKERS), default=[*BROKERS], metavar="A,B")
    names = sorted({each.name for each in CONTENDERS})
    parser.add_argument("--contenders", type=_names(names), default=names, metavar="A,B")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=20_000, help="of a full drain")
    parser.add_argument(
        "--environment",
        type=Path,
        default=ROOT / ".benchmark",
        help="directory of the peers' packages; made if it is not there",
    )
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    return parser.parse_args()


def _names(known):
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(
                f"there is no {sorted(unknown)[0]!r}, but {', '.join(known)}"
            )
        return names

    return parse


def run_rounds(
    workload: Workload, python: Path, servers: Servers, options: argparse.Namespace
) -> dict[Contender, Result]:
    """Run all contenders in each round, one after the other; who fails once is left out."""
    results: dict[Contender, Result] = {
        each: servers.missing.get(each.broker, [])
        for each in CONTENDERS
        if each.broker in options.brokers
        and each.name in options.contenders
        and (workload.has_floor or each.name != FLOOR)
    }
    try:
        for number in range(options.rounds):
            for contender, runs in results.items():
                if not isinstance(runs, str):
                    outcome = try_once(workload, contender, python, servers, options.messages)
                    note = {"round": number + 1, "contender": contender.title, "result": outcome}
                    print(json.dumps(note), file=sys.stderr, flush=True)
                    if isinstance(outcome, str):
                        results[contender] = outcome
                    else:
                        runs.append(outcome)
    except KeyboardInterrupt:
        print("Interrupted; these are the rounds so far.", file=sys.stderr)
    return results


def try_once(
    workload: Workload, contender: Contender, python: Path, servers: Servers, size: int
) -> Figures | str:
    """Return the figures, or what went wrong."""
    try:
        with Contest(contender, python, servers) as contest:
            return workload.run(contest, size)
    except Failed as failure:
        return str(failure)
    except Exception as error:  # a server's or a client's; the others go on
        return f"{contender.title}: {type(error).__name__}: {error}"


def write_page(text: str) -> None:
    """Put the figures in their place on the page; what is written around them stays."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{text}{END}{after}")


if __name__ == "__main__":
    main()
