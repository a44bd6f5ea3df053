"""What the engines in a Django project share."""

from __future__ import annotations

import os


def set_up() -> None:
    """Set Django up, where that is not done already: in a process that only sends."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.benchmarks.speed.settings")
    import django
    from django.apps import apps

    # A worker imports the module while its apps are being made ready.
    if not apps.loading:
        django.setup()


def prepare_database() -> None:
    """Have the tables, all of them empty."""
    from django.core.management import call_command
    from django.db import connection

    if not connection.introspection.table_names():
        call_command("migrate", verbosity=0)
    tables = set(connection.introspection.table_names()) - {"django_migrations"}
    quoted = [connection.ops.quote_name(table) for table in sorted(tables)]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"TRUNCATE {', '.join(quoted)} RESTART IDENTITY CASCADE")
        else:
            for table in quoted:
                cursor.execute(f"DELETE FROM {table}")
