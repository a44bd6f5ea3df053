"""
``manage.py actors``: look at queues, workers and messages, and act on them.

Everything is done by ``django_actors.control``; here are the words for it.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError
from django.utils import timezone

from django_actors import clock, control
from django_actors.conf import settings
from django_actors.control.checkup import DEFAULT_BACKLOG_AGE_MS
from django_actors.errors import BrokerUnavailable
from django_actors.models import WaitingMessage

from ._asking import (
    BAD_ARGUMENT,
    add_filters,
    add_subcommands,
    read_count,
    read_duration,
    read_time,
    select,
)
from ._tables import as_json, block, duration, percent, plain, table

UNHEALTHY = 1

LIST_LIMIT = 20


class Command(BaseCommand):
    help = "Look at queues, workers and messages of actors, and act on them."

    # For a monitor it has to answer, also where a check would complain.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        commands = add_subcommands(parser)
        stats = commands.add("stats", self.stats, "what became of messages, by actor")
        stats.add_argument("--hours", type=read_count, default=24, help="default: 24")
        commands.add("queues", self.queues, "every queue as it is now")
        commands.add("workers", self.workers, "the living worker processes and what they run")
        commands.add("list", self.list_actors, "the actors of this project")
        self._add_health(commands)
        for name, run in (("pause", self.pause), ("resume", self.resume)):
            commands.add(name, run, f"{name} a queue").add_argument("queue", metavar="QUEUE")
        self._add_dead(commands.add("dead", None, "dead letters"))
        self._add_scheduled(commands.add("scheduled", None, "scheduled messages"))

    def _add_health(self, commands: Any) -> None:
        health = commands.add(
            "health", self.health, "say what is wrong; exits with 1 if anything is"
        )
        health.add_argument(
            "--backlog-age",
            type=read_duration,
            default=DEFAULT_BACKLOG_AGE_MS,
            metavar="AGE",
            help="how long a ready message may wait; default: 15m",
        )
        health.add_argument(
            "--dead-letters",
            type=read_count,
            metavar="N",
            help="how many dead letters there may be; default: any number",
        )
        health.add_argument(
            "--no-worker-needed",
            action="store_true",
            help="say nothing of missing workers while no message waits",
        )

    def _add_dead(self, parser: CommandParser) -> None:
        commands = add_subcommands(parser)
        self._add_list(commands.add("list", self.list_dead, "list dead letters, latest first"))
        show = commands.add("show", self.show, "show one with its traceback")
        show.add_argument("id", metavar="ID")
        requeue = commands.add("requeue", self.requeue, "run again, from the first attempt")
        requeue.add_argument("--delay", type=read_duration, default=0, help="such as 10m")
        self._add_bulk(requeue)
        self._add_bulk(commands.add("discard", self.discard, "delete for good"))

    def _add_scheduled(self, parser: CommandParser) -> None:
        commands = add_subcommands(parser)
        self._add_list(commands.add("list", self.list_scheduled, "list them, the next one first"))
        show = commands.add("show", self.show, "show one")
        show.add_argument("id", metavar="ID")
        self._add_bulk(commands.add("run", self.run_now, "run as soon as a worker has time"))
        again = commands.add("reschedule", self.reschedule, "run at another time")
        when = again.add_mutually_exclusive_group(required=True)
        when.add_argument("--at", type=read_time, metavar="TIME", help="such as 2030-01-31T12:00")
        when.add_argument("--in", type=read_duration, dest="within", help="such as 10m")
        self._add_bulk(again)
        self._add_bulk(commands.add("cancel", self.cancel, "delete for good, without a run"))

    def _add_list(self, parser: CommandParser) -> None:
        add_filters(parser, ids=False)
        parser.add_argument(
            "--limit", type=read_count, default=LIST_LIMIT, help=f"default: {LIST_LIMIT}"
        )

    def _add_bulk(self, parser: CommandParser) -> None:
        add_filters(parser, ids=True)
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.add_argument("--progress", action="store_true", help="tell how far it has come")

    def handle(self, *args: Any, **options: Any) -> None:
        run: Callable[..., None] = options["run"]
        try:
            run(options)
        except BrokerUnavailable as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            text = f"The database {settings.DATABASE!r} does not answer: {error}"
            raise CommandError(text.strip()) from error

    def _write(self, options: Any, value: Any, text: Callable[[], str]) -> None:
        self.stdout.write(as_json(value) if options["json"] else text())

    # ---- to look at ------------------------------------------------------------

    def stats(self, options: Any) -> None:
        found = control.stats(hours=max(1, options["hours"]))
        rows = [
            (
                name or "(no actor)",
                *(each.succeeded, each.failed, each.retried, each.dead),
                percent(each.failure_rate),
                "-" if each.mean_ms is None else f"{each.mean_ms:,.0f}",
            )
            for name, each in found.items()
        ]
        header = ("ACTOR", "SUCCEEDED", "FAILED", "RETRIED", "DEAD", "RATE", "MEAN MS")
        value = {
            name: {**asdict(each), "failure_rate": each.failure_rate, "mean_ms": each.mean_ms}
            for name, each in found.items()
        }
        self._write(options, value, lambda: table(header, rows, numbers=1))

    def queues(self, options: Any) -> None:
        info = control.broker()
        found = control.queues(broker_info=info)
        header = (
            *("QUEUE", "READY", "RUNNING", "SCHEDULED", "DEAD", "OLDEST", "PER MIN", "FAILED"),
            *("WORKERS", "STATE"),
        )
        rows = [
            (
                *(each.name, each.ready, each.running, each.scheduled, each.dead),
                *(duration(each.oldest_ms), f"{each.per_minute:.1f}"),
                *(percent(each.last_hour.failure_rate), each.workers),
                f"paused by {each.paused_by or 'somebody'}" if each.is_paused else "",
            )
            for each in found
        ]
        self._write(
            options, [_queue_json(each) for each in found], lambda: table(header, rows, numbers=1)
        )
        if not info.answers:
            self.stderr.write(self.style.WARNING(f"The broker does not answer: {info.error}"))

    def workers(self, options: Any) -> None:
        found = control.workers()
        header = ("HOST", "PID", "BUSY", "THREADS", "MB", "UP", "SEEN", "QUEUES")
        rows = [
            (
                *(each.host, each.pid, each.busy, each.threads, each.memory_bytes // 1024**2),
                *(duration(each.up_ms), duration(each.seen_ms), ",".join(each.queues)),
            )
            for each in found
        ]
        running = [
            f"{each.host}:{each.pid} runs {plain(run.actor_name)} {run.message_id} "
            f"for {duration(run.for_ms)}"
            for each in found
            for run in each.running
        ]
        self._write(
            options,
            [asdict(each) for each in found],
            lambda: "\n".join([table(header, rows, numbers=1), *running]),
        )

    def list_actors(self, options: Any) -> None:
        found = control.actors()
        header = ("ACTOR", "QUEUE", "PRIORITY", "SUCCEEDED", "FAILED", "DESCRIPTION")
        rows = [
            (
                *(f"{each.name}{each.signature}", each.queue, each.priority),
                *(each.last_day.succeeded, each.last_day.failed),
                each.description.partition("\n")[0],
            )
            for each in found
        ]
        self._write(options, [asdict(e) for e in found], lambda: table(header, rows, numbers=2))

    def health(self, options: Any) -> None:
        problems = control.health(
            backlog_age=options["backlog_age"],
            dead_letters=options["dead_letters"],
            need_worker=not options["no_worker_needed"],
        )
        self._write(
            options,
            [asdict(each) for each in problems],
            lambda: "\n".join(f"{each.code}: {each.text}" for each in problems) or "ok",
        )
        if problems:
            sys.exit(UNHEALTHY)

    # ---- queues ----------------------------------------------------------------

    def pause(self, options: Any) -> None:
        name = options["queue"]
        changed = _named(lambda: control.pause(name, by=who()))
        text = "is paused; workers obey within 2 s." if changed else "was paused already."
        self._write(options, {"queue": name, "changed": changed}, lambda: f"Queue {name!r} {text}")

    def resume(self, options: Any) -> None:
        name = options["queue"]
        changed = _named(lambda: control.resume(name))
        text = "is read again." if changed else "was not paused."
        self._write(options, {"queue": name, "changed": changed}, lambda: f"Queue {name!r} {text}")

    # ---- messages --------------------------------------------------------------

    def list_dead(self, options: Any) -> None:
        rows = select(control.dead_letters, options).rows()[: options["limit"]]
        header = ("ID", "AGE", "QUEUE", "REASON", "EXCEPTION", "CALL")
        self._list(options, list(rows), header, lambda row: (row.reason, row.error_class or "-"))

    def list_scheduled(self, options: Any) -> None:
        rows = select(control.scheduled, options).rows()[: options["limit"]]
        header = ("ID", "AGE", "QUEUE", "REASON", "DUE IN", "CALL")
        self._list(options, list(rows), header, lambda row: (row.reason, _due_in(row)))

    def _list(self, options: Any, found: Any, header: Any, middle: Callable[[Any], Any]) -> None:
        rows = [
            (_id(row), _age(row), row.queue_name, *middle(row), plain(row.call)) for row in found
        ]
        self._write(options, [_row_json(row) for row in found], lambda: table(header, rows))

    def show(self, options: Any) -> None:
        row = control.show(options["id"])
        if row is None:
            raise CommandError(
                f"No dead letter and no scheduled message has the id {options['id']!r}."
            )
        value = {**_row_json(row), "traceback": row.traceback}
        self._write(
            options,
            value,
            lambda: "\n".join(
                [
                    *(f"{name}: {plain(each, 2_000)}" for name, each in _row_json(row).items()),
                    block(row.traceback),
                ]
            ),
        )

    def requeue(self, options: Any) -> None:
        selection = select(control.dead_letters, options)
        self._do(
            options,
            "requeued",
            lambda tell: control.requeue(
                selection, delay=options["delay"], by=who(), progress=tell
            ),
        )

    def discard(self, options: Any) -> None:
        selection = select(control.dead_letters, options)
        self._ask("discard", selection, options)
        self._do(
            options, "discarded", lambda tell: control.discard(selection, by=who(), progress=tell)
        )

    def run_now(self, options: Any) -> None:
        selection = select(control.scheduled, options)
        self._do(
            options, "due now", lambda tell: control.run_now(selection, by=who(), progress=tell)
        )

    def reschedule(self, options: Any) -> None:
        selection = select(control.scheduled, options)
        due = options["at"] or timezone.now() + timedelta(milliseconds=options["within"])
        self._do(
            options,
            "rescheduled",
            lambda tell: control.reschedule(selection, due=due, by=who(), progress=tell),
        )

    def cancel(self, options: Any) -> None:
        selection = select(control.scheduled, options)
        self._ask("cancel", selection, options)
        self._do(
            options, "cancelled", lambda tell: control.cancel(selection, by=who(), progress=tell)
        )

    def _ask(self, verb: str, selection: control.Selection, options: Any) -> None:
        """Count by actor, and ask, before something that cannot be undone."""
        counts = selection.count_by_actor()
        if options["yes"] or not counts:
            return
        lines = [f"{count:>10,}  {plain(name) or '(no actor)'}" for name, count in counts.items()]
        self.stderr.write("\n".join(lines[:LIST_LIMIT]))
        if not sys.stdin.isatty():
            raise CommandError(f"Say --yes to {verb} them.", returncode=BAD_ARGUMENT)
        total = sum(counts.values())
        if input(f"Type 'yes' to {verb} {total:,} messages for good: ") != "yes":
            raise CommandError("Nothing was done.")

    def _do(
        self,
        options: Any,
        done: str,
        work: Callable[[Callable[[control.Report], object]], control.Report],
    ) -> None:
        report = work(lambda so_far: self._tell(options, so_far))
        skipped = [f"{count} skipped: {reason}" for reason, count in report.skipped.items()]
        self._write(
            options,
            {"done": report.done, "skipped": dict(report.skipped)},
            lambda: "\n".join([f"{report.done} {done}", *skipped]),
        )

    def _tell(self, options: Any, report: control.Report) -> None:
        if options["progress"]:
            self.stderr.write(f"{report.seen} so far")


def who() -> str:
    """Return who runs the command, for other operators to see."""
    try:
        return f"{getpass.getuser()} (manage.py)"
    except (KeyError, OSError):
        # Containers may have a user without a name.
        return "manage.py"


def _named(change: Callable[[], bool]) -> bool:
    try:
        return change()
    except control.UnknownQueue as error:
        raise CommandError(str(error), returncode=BAD_ARGUMENT) from error


def _id(row: WaitingMessage) -> str:
    return row.message_id or f"#{row.pk}"


def _age(row: WaitingMessage) -> str:
    return duration(int((timezone.now() - row.stored_at).total_seconds() * clock.MS_PER_S))


def _due_in(row: WaitingMessage) -> str:
    due_ms = row.due_ms or 0
    return "now" if due_ms <= clock.now_ms() else duration(due_ms - clock.now_ms())


def _row_json(row: WaitingMessage) -> dict[str, Any]:
    return {
        "id": _id(row),
        "kind": row.kind,
        "queue": row.queue_name,
        "actor": row.actor_name,
        "call": row.call,
        "reason": row.reason,
        "attempts": row.attempts,
        "exception": row.error_class,
        "error": row.error,
        "due": row.available_at,
        "stored_at": row.stored_at,
    }


def _queue_json(queue: control.QueueInfo) -> dict[str, Any]:
    value = asdict(queue)
    for name in ("minutes", "hours", "is_capped"):
        del value[name]
    return {**value, "paused": queue.is_paused, "failure_rate": queue.last_hour.failure_rate}
