"""
What the pages of the admin cost over a million rows: each with ten rows, and then with many.

    DATABASE_URL=postgres://... python -m tests.benchmarks.admin [--rows 1000000] [--plans]

Makes a database of its own beside the one that is named, on PostgreSQL, and drops it.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import django

PROJECT = Path(__file__).resolve().parents[2] / "testproject"

GROUPS = 200
FEW = 10

# As a worker would have written them: 50 actors, 200 error groups, over the last week.
ROWS = """
INSERT INTO django_actors_waitingmessage
    (message_id, kind, queue_name, actor_name, priority, body, call, reason, attempts, error_class,
     error, traceback, frame, fingerprint, due_ms, stored_at, claimed_by)
SELECT
    gen_random_uuid()::text, %(kind)s, 'queue' || n %% 5, 'shop.actor' || n %% 50, 0,
    convert_to('{"queue_name":"queue0","actor_name":"shop.actor0","args":[' || n ||
        '],"kwargs":{},"options":{},"message_id":"x","message_timestamp":1}', 'UTF8'),
    'shop.actor' || n %% 50 || '(' || n || ')', %(reason)s, 3, 'Error' || n %% 20,
    'Order ' || n || ' is lost.', repeat('  File "/srv/shop/tasks.py", line 7, in pay' || n, 20),
    'shop.tasks.pay:7', lpad((n %% %(groups)s)::text, 32, '0'),
    CASE WHEN %(kind)s = 'dead' THEN NULL
         ELSE (extract(epoch FROM now()) * 1000)::bigint + 60000 + n END,
    now() - n * interval '604800 seconds' / %(rows)s, ''
FROM generate_series(1, %(rows)s) n
"""

ATTEMPTS = """
INSERT INTO django_actors_attempt
    (message_id, number, outcome, queue_name, actor_name, began_ms, ended_ms, host, pid,
     error_class, error, frame, by)
SELECT message_id, 1, 'retried', queue_name, actor_name, n, n, 'web1', 1, error_class, error,
       frame, ''
FROM (SELECT *, extract(epoch FROM stored_at)::bigint * 1000 AS n
      FROM django_actors_waitingmessage WHERE kind = 'dead') dead
"""

ERROR_GROUPS = """
INSERT INTO django_actors_errorgroup
    (fingerprint, actor_name, error_class, frame, error, traceback, first_ms, last_ms, count)
SELECT fingerprint, min(actor_name), min(error_class), min(frame), min(error), min(traceback),
       (extract(epoch FROM min(stored_at)) * 1000)::bigint,
       (extract(epoch FROM max(stored_at)) * 1000)::bigint, count(*)
FROM django_actors_waitingmessage WHERE kind = 'dead' GROUP BY fingerprint
"""

COUNTS = """
INSERT INTO django_actors_errorcount (fingerprint, start_ms, count)
SELECT fingerprint, (extract(epoch FROM stored_at)::bigint / 300) * 300000 AS start, count(*)
FROM django_actors_waitingmessage WHERE kind = 'dead' GROUP BY 1, 2
"""


def fill(rows: int) -> None:
    """Replace what is there by *rows* dead letters and as many scheduled messages."""
    from django.db import connection

    values = {"rows": rows, "groups": GROUPS}
    with connection.cursor() as cursor:
        for table in ("waitingmessage", "attempt", "errorgroup", "errorcount"):
            cursor.execute(f"TRUNCATE django_actors_{table}")
        cursor.execute(ROWS, {**values, "kind": "dead", "reason": "retries exhausted"})
        cursor.execute(ROWS, {**values, "kind": "scheduled", "reason": "retry"})
        for statement in (ATTEMPTS, ERROR_GROUPS, COUNTS):
            cursor.execute(statement)
        cursor.execute("VACUUM ANALYZE")


def pages() -> dict[str, str]:
    """Return the addresses of the pages by what they are."""
    from django.urls import reverse

    from django_actors.models import DeadLetter, ErrorGroup, ScheduledMessage

    dead, waiting = DeadLetter.objects.latest("pk"), ScheduledMessage.objects.latest("pk")
    group = ErrorGroup.objects.latest("last_ms")
    dead_list = reverse("admin:django_actors_deadletter_changelist")
    groups = reverse("admin:django_actors_errorgroup_changelist")
    return {
        "index of the admin": reverse("admin:index"),
        "overview": reverse("admin:django_actors_overview_changelist"),
        "overview, what is live": reverse("admin:django_actors_overview_live"),
        "actors": reverse("admin:django_actors_actorsummary_changelist"),
        "dead letters": dead_list,
        "dead letters, the last hour": f"{dead_list}?age=hour",
        "dead letters of an error group": f"{dead_list}?fingerprint={group.pk}",
        "dead letters, an id looked for": f"{dead_list}?q={dead.message_id}",
        "a dead letter": reverse("admin:django_actors_deadletter_change", args=[dead.pk]),
        "requeue a dead letter?": reverse("admin:django_actors_deadletter_requeue", args=[dead.pk]),
        "what became of a message": reverse(
            "admin:django_actors_deadletter_message", args=[dead.message_id]
        ),
        "scheduled messages": reverse("admin:django_actors_scheduledmessage_changelist"),
        "a scheduled message": reverse(
            "admin:django_actors_scheduledmessage_change", args=[waiting.pk]
        ),
        "error groups": groups,
        "error groups, the last week": f"{groups}?period=week",
        "an error group": reverse("admin:django_actors_errorgroup_change", args=[group.pk]),
        "requeue an error group?": reverse(
            "admin:django_actors_errorgroup_requeue", args=[group.pk]
        ),
    }


def measure(client: Any, url: str, rounds: int) -> tuple[float, float, list[str]]:
    """Return the milliseconds of the first view, their median, and the slow statements."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    times = []
    with CaptureQueriesContext(connection) as queries:
        for _ in range(rounds):
            began = time.perf_counter()
            response = client.get(url)
            times.append((time.perf_counter() - began) * 1_000)
            if response.status_code != 200:
                raise SystemExit(f"{url}: {response.status_code}")
    slow = [query["sql"] for query in queries if float(query["time"]) > 0.02]
    return times[0], statistics.median(times), slow


def explain(statements: list[str]) -> None:
    """Print the plans of *statements*, each once."""
    from django.db import connection

    seen = set()
    for statement in statements:
        shape = re.sub(r"'[^']*'|\d+", "?", statement)
        if shape in seen or not statement.startswith("SELECT"):
            continue
        seen.add(shape)
        print(f"\n{statement[:300]}")
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, COSTS OFF) {statement}")
            print("\n".join(f"    {line}" for (line,) in cursor.fetchall()))


def run(options: argparse.Namespace) -> None:
    from django.contrib.auth import get_user_model
    from django.test import Client

    client = Client()
    client.force_login(get_user_model().objects.create_superuser("ada", password="x"))
    client.get("/admin/")
    found: dict[int, dict[str, tuple[float, float, list[str]]]] = {}
    for rows in (FEW, options.rows):
        began = time.perf_counter()
        fill(rows)
        print(f"{rows} dead and {rows} scheduled rows in {time.perf_counter() - began:.0f} s")
        found[rows] = {name: measure(client, url, options.rounds) for name, url in pages().items()}
    few, many = found[FEW], found[options.rows]
    print(f"\n{'ms, first view and median':34}{FEW:>16}{options.rows:>18}{'more':>8}")
    for name, (first, median, _) in many.items():
        print(
            f"{name:34}{few[name][0]:8.0f}{few[name][1]:8.0f}{first:10.0f}{median:8.0f}"
            f"{first - few[name][0]:8.0f}"
        )
    if options.plans:
        explain([sql for _, _, slow in many.values() for sql in slow])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plans", action="store_true", help="explain statements over 20 ms")
    options = parser.parse_args()
    sys.path.insert(0, str(PROJECT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")
    django.setup()
    from django.db import connection
    from django.test.utils import setup_test_environment

    if connection.vendor != "postgresql":
        raise SystemExit("DATABASE_URL must name a database of PostgreSQL.")
    setup_test_environment()
    name = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0)
    try:
        run(options)
    finally:
        connection.creation.destroy_test_db(name, verbosity=0)


if __name__ == "__main__":
    main()
