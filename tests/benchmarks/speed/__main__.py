"""The command: prepare, run the contenders interleaved, print the page's figures."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .contenders import BROKERS, CONTENDERS
from .environment import ROOT, make_environment
from .measures import FEWEST
from .page import PAGE, make_blocks, write_page
from .results import Report, describe, load_reports
from .rounds import run_rounds
from .servers import VARIABLES, Servers
from .workloads import WORKLOADS

DESCRIPTION = """\
Measure the engine beside its peers and beside a bare loop, in one run on the same servers.

Without an option everything is measured, which takes about 35 minutes on two cores. The
peers are installed in an environment of their own at first. Redis, RabbitMQ and PostgreSQL have
to run already; what does not answer is left out, and said so.
"""


def main() -> None:
    options = parse_arguments()
    report = load_reports(options.read) if options.read else measure(options)
    if options.save:
        options.save.write_text(report.dump())
    print("\n\n".join(make_blocks(report).values()))
    if options.write:
        write_page(report)


def measure(options: argparse.Namespace) -> Report:
    python = make_environment(options.environment)
    contenders = [
        each
        for each in CONTENDERS
        if each.broker in options.brokers and each.name in options.contenders
    ]
    rounds = dict.fromkeys(options.workloads, options.rounds)
    with Servers(options.brokers) as servers:
        results = run_rounds(rounds, contenders, python, servers, options.messages)
    about = describe(servers.versions, options.messages)
    return Report(about, [describe_command(sys.argv[1:])], results)


def describe_command(arguments: Sequence[str]) -> str:
    """Return the command without what says nothing of the figures: where things are kept."""
    words = ["python", "-m", "tests.benchmarks.speed"]
    rest = iter(arguments)
    for each in rest:
        if each in ("--environment", "--save"):
            next(rest, None)
        elif each != "--write" and not each.startswith(("--environment=", "--save=")):
            words.append(each)
    return shlex.join(words)


def parse_arguments() -> argparse.Namespace:
    return make_parser().parse_args()


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.speed",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=DESCRIPTION,
        epilog="\n".join(_epilog()),
    )
    add = parser.add_argument
    names = sorted({each.name for each in CONTENDERS})
    add(
        "--workloads", type=_names(WORKLOADS), default=[*WORKLOADS], metavar="A,B", help="see below"
    )
    add("--brokers", type=_names(BROKERS), default=[*BROKERS], metavar="A,B", help=_all(BROKERS))
    add("--contenders", type=_names(names), default=names, metavar="A,B", help=_all(names))
    add("--rounds", type=_at_least(0), default=0, help="of each workload; by default as below")
    add(
        "--messages",
        type=_at_least(FEWEST),
        default=20_000,
        help="of a full drain (default: 20000); the other numbers grow and shrink "
        "with it, but for those of messages that are far away or behind",
    )
    add(
        "--environment",
        type=Path,
        default=ROOT / ".benchmark",
        metavar="DIRECTORY",
        help="where the peers are installed (default: .benchmark in the checkout)",
    )
    add("--save", type=Path, metavar="FILE", help="keep the figures of all rounds, as JSON")
    add(
        "--read",
        type=_paths,
        metavar="FILE,FILE",
        help="measure nothing, but tell what was kept; the rounds of several files add up",
    )
    add("--write", action="store_true", help=f"put the figures into {PAGE.relative_to(ROOT)}")
    return parser


def _epilog() -> Iterable[str]:
    yield "workloads (with their rounds):"
    for name, workload in WORKLOADS.items():
        yield f"  {name:<12}{workload.title} ({workload.rounds})"
    yield "\nenvironment variables:"
    for variable, default in VARIABLES.values():
        yield f"  {variable:<24}{default}"
    yield "\nthe database of Redis has to be an empty one"


def _all(names: Iterable[str]) -> str:
    return f"of {', '.join(names)} (default: all)"


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(
                f"there is no {sorted(unknown)[0]!r}, but {', '.join(known)}"
            )
        return names

    return parse


def _at_least(lowest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if number < lowest:
            raise argparse.ArgumentTypeError(f"{number} is less than {lowest}")
        return number

    return parse


def _paths(text: str) -> list[Path]:
    return [Path(each) for each in text.split(",")]


if __name__ == "__main__":
    main()
