"""Calls of actors as a project writes them: right ones, and wrong ones marked so."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from django_actors import Message, actor


@actor
def greet(name: str, *, times: int = 1) -> str:
    return name * times


@actor(queue_name="mail", max_retries=3, min_backoff=timedelta(seconds=1))
def mail(address: str) -> None: ...


@actor
async def fetch(url: str) -> int:
    return len(url)


@actor(priority=5)
async def fetch_later(url: str) -> int:
    return len(url)


class Mail:
    @actor
    @staticmethod
    def deliver(address: str) -> None: ...


def right_calls() -> None:
    assert_type(greet("Ada"), str)
    assert_type(greet.send("Ada", times=2), Message)
    mail.send("ada@example.com")
    Mail.deliver.send("ada@example.com")
    fetch.send("https://example.com")
    fetch_later.send(url="https://example.com")
    assert_type(greet.send_many([("Ada",), greet.message("Bob")]), list[Message])
    greet.send_with_options(args=("Ada",), kwargs={"times": 2}, delay=1_000)
    greet.send_with_options(args=("Ada",), delay=timedelta(seconds=1), max_retries=2)


def wrong_calls() -> None:
    greet.send()  # wrong
    greet.send(5)  # wrong
    greet.send("Ada", 2)  # wrong
    greet.send("Ada", tmes=2)  # wrong
    greet.send("Ada", times="2")  # wrong
    greet.message(5)  # wrong
    mail.send("ada@example.com", "bob@example.com")  # wrong
    Mail.deliver.send()  # wrong
    fetch.send(5)  # wrong
    fetch_later.send(url=5)  # wrong
    greet.send_with_options(("Ada",))  # wrong
    greet.send_with_options(args=5)  # wrong
    greet.send_with_options(args=("Ada",), delay="1s")  # wrong
    greet.sned("Ada")  # wrong


async def coroutines() -> None:
    assert_type(await greet.asend("Ada"), Message)
    assert_type(await fetch("https://example.com"), int)
    await fetch.asend("https://example.com")
    await greet.asend(5)  # wrong
    await fetch.asend()  # wrong
    await greet.asend_with_options(args=5)  # wrong
