"""
Which actors this process knows, by name.

The decorator fills it, whoever has received a message looks into it. An actor
declared before Django knows its apps waits here until its name can be told.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Iterable
from typing import Any, Protocol

from django.apps import apps

from .errors import ActorNotFound


class RegisteredActor(Protocol):
    """What the registry, the middleware and the executor need of an actor."""

    @property
    def actor_name(self) -> str: ...
    @property
    def queue_name(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def options(self) -> dict[str, Any]: ...
    @property
    def place(self) -> str: ...
    def check(self) -> None: ...
    def parameter_names(self, count: int) -> list[str]: ...
    def keyword_parameter(self, keyword: str) -> str: ...
    def message(self, *args: Any, **kwargs: Any) -> Any: ...
    def run(self, *args: Any, **kwargs: Any) -> Any: ...


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest of *known*, or an empty text."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f" Did you mean {matches[0]!r}?" if matches else ""


class Registry:
    """
    The actors of a process.

    Attributes:
        version: Grows with every actor, so that a running worker sees new queues.
    """

    def __init__(self) -> None:
        self.version = 0
        self._actors: dict[str, RegisteredActor] = {}
        self._undecided: list[RegisteredActor] = []
        self._lock = threading.RLock()

    def add(self, actor: RegisteredActor) -> None:
        """
        Take an actor in, now or as soon as Django knows its apps.

        Raises:
            ValueError: its name is taken by an actor of another place, or
                an option of it is unknown or wrong.
        """
        with self._lock:
            self._undecided.append(actor)
            if apps.apps_ready:
                self.resolve()

    def resolve(self) -> None:
        """Name and check the actors that were declared before Django was ready."""
        with self._lock:
            while self._undecided:
                self._register(self._undecided.pop(0))

    def _register(self, actor: RegisteredActor) -> None:
        actor.check()
        name = actor.actor_name
        known = self._actors.get(name)
        # The same place again is a module that was loaded a second time.
        if known is not None and known.place != actor.place:
            raise ValueError(
                f"Two actors are called {name!r}: one at {known.place}, one at "
                f"{actor.place}. Give one of them another name with actor_name=."
            )
        self._actors[name] = actor
        self.version += 1

    def get(self, name: str) -> RegisteredActor:
        """
        Return the actor called *name*.

        Raises:
            ActorNotFound: there is none; the error names the closest one.
        """
        if self._undecided and apps.apps_ready:
            self.resolve()
        try:
            return self._actors[name]
        except KeyError:
            raise ActorNotFound(
                f"There is no actor {name!r} in this process.{nearest(name, self._actors)}"
            ) from None

    def find(self, name: str) -> RegisteredActor | None:
        """Return the actor called *name*, or ``None``."""
        return self._actors.get(name)

    def actors(self) -> dict[str, RegisteredActor]:
        """Return all actors by name."""
        if self._undecided and apps.apps_ready:
            self.resolve()
        with self._lock:
            return dict(self._actors)

    def queue_names(self) -> set[str]:
        """Return the names of the queues that any actor uses."""
        return {actor.queue_name for actor in self.actors().values()}

    def remove(self, name: str) -> None:
        """Forget the actor called *name*, if there is one; for tests."""
        with self._lock:
            self._actors.pop(name, None)
            self.version += 1


registry = Registry()
