"""
Actors that write what they do into a file the engine knows nothing of.

The file is named by the environment variable LEDGER. A line is: what, key, process
id, time. Appending one short line to a file is atomic, so all processes share it.
"""

from __future__ import annotations

import ctypes
import os
import time

from django.db import connection

from django_actors import actor
from django_actors.middleware import CurrentMessage


def note(what: str, key: object) -> None:
    """Append a line to the ledger."""
    line = f"{what} {key} {os.getpid()} {time.time():.6f}\n"
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(ledger, line.encode())
    finally:
        os.close(ledger)


@actor
def record(key):
    note("ran", key)


@actor
def forget(key=None):
    """Leave no trace; for measuring the engine alone."""


@actor
def ask(seconds):
    """Ask the database, and keep the thread for some time."""
    connection.ensure_connection()
    time.sleep(seconds)


@actor
def work(key, seconds):
    note("began", key)
    time.sleep(seconds)
    note("ran", key)


@actor(priority=100)
def low(key, seconds=0.0):
    note("began", key)
    time.sleep(seconds)


@actor(priority=0)
def high(key):
    note("began", key)


@actor(max_retries=3, min_backoff=50, max_backoff=50)
def fail(key):
    note("failed", key)
    raise RuntimeError(f"{key} always fails")


@actor(max_retries=5, min_backoff=100, max_backoff=300)
def stumble(key, seconds):
    """Fail once, then work."""
    note("began", key)
    message = CurrentMessage.get_current_message()
    if message is not None and not message.options.get("retries"):
        note("failed", key)
        raise RuntimeError(f"{key} stumbles")
    time.sleep(seconds)
    note("ran", key)


@actor
def exit_process(key, code):
    note("began", key)
    os._exit(code)


@actor
def crash(key):
    note("began", key)
    ctypes.string_at(0)


@actor(time_limit=500, max_retries=0)
def loop(key):
    note("began", key)
    try:
        while True:
            pass
    finally:
        note("ended", key)


@actor(time_limit=500, max_retries=0)
def block(key):
    note("began", key)
    time.sleep(3_600)


@actor(time_limit=500, max_retries=0)
def hold_the_gil(key):
    note("began", key)
    ctypes.pythonapi.PyErr_CheckSignals()
    # PyDLL keeps the GIL: no other thread of this process runs until it returns.
    ctypes.PyDLL(None).sleep(3_600)


@actor
def late(key, due_ms):
    note("ran", f"{key}:{time.time() * 1_000 - due_ms:.0f}")
