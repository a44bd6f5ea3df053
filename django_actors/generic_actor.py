"""
Actors written as classes.
"""

from __future__ import annotations

import inspect
from typing import Any

from .actor import Actor, actor


def _meta_options(cls: type) -> dict[str, Any]:
    options: dict[str, Any] = {}
    metas = [vars(base)["Meta"] for base in reversed(cls.__mro__) if "Meta" in vars(base)]
    for meta in metas:
        options.update({k: getattr(meta, k) for k in dir(meta) if not k.startswith("_")})
    # Everything is inherited but being abstract.
    own = vars(cls).get("Meta")
    options["abstract"] = own is not None and vars(own).get("abstract", False)
    return options


class _GenericActorType(type):
    """Make each concrete subclass an actor, whose attributes the class passes on."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> None:
        super().__init__(name, bases, namespace)
        options = _meta_options(cls)
        if bases and not options.pop("abstract", False):
            cls.__actor__ = _declare_class(cls, options)

    def __getattr__(cls, name: str) -> Any:
        declared = vars(cls).get("__actor__")
        if declared is None:
            raise AttributeError(f"{cls.__name__} is abstract: it has no {name!r}.")
        return getattr(declared, name)

    def __str__(cls) -> str:
        return str(vars(cls).get("__actor__", cls.__name__))


class GenericActor(metaclass=_GenericActorType):
    """
    A base for actors written as classes.

    A subclass is an actor that runs its ``perform`` method on a new instance; calling an
    instance runs it here. A nested class ``Meta`` holds what ``@actor`` would be given;
    ``abstract = True`` in it makes the class a base for others, which inherit its ``Meta``.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.perform(*args, **kwargs)

    def perform(self, *args: Any, **kwargs: Any) -> Any:
        """Do the work; a subclass says how."""
        raise NotImplementedError(f"{type(self).__name__} does not implement perform().")


def _declare_class(cls: type, options: dict[str, Any]) -> Actor[..., Any]:
    def perform(*args: Any, **kwargs: Any) -> Any:
        return cls()(*args, **kwargs)

    perform.__name__ = cls.__name__
    perform.__qualname__ = cls.__qualname__
    perform.__module__ = cls.__module__
    perform.__doc__ = cls.__doc__
    bound = inspect.signature(cls.perform)  # type: ignore[attr-defined]
    own = list(bound.parameters.values())[1:]
    perform.__signature__ = bound.replace(parameters=own)  # type: ignore[attr-defined]
    perform.__actor_place__ = f"{cls.__module__}.{cls.__qualname__}"  # type: ignore[attr-defined]
    return actor(perform, **options)
