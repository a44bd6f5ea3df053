"""
The parameters of an actor's function: which calls fit them, and whose each argument is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class Parameters:
    """
    What a function takes.

    Args:
        fn: Any callable with a signature.

    Attributes:
        names: The names of all parameters, in order.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._signature = inspect.signature(fn)
        self._arity = _positional_arity(self._signature)
        self.names = list(self._signature.parameters)

    def __str__(self) -> str:
        return str(self._signature)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """
        See whether the function could be called so.

        Raises:
            TypeError: it could not; the text is Python's own.
        """
        # Most calls are plain positional ones; Signature.bind() is 20 times slower.
        if kwargs or len(args) not in self._arity:
            self._signature.bind(*args, **kwargs)

    def of_positional(self, count: int) -> list[str]:
        """Return the names of those that take the first *count* positional arguments."""
        names: list[str] = []
        for parameter in self._signature.parameters.values():
            if parameter.kind is parameter.VAR_POSITIONAL:
                return names[:count] + [parameter.name] * (count - len(names))
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
                break
            names.append(parameter.name)
        return names[:count] + [""] * (count - len(names))

    def of_keyword(self, keyword: str) -> str:
        """Return the name of the one that takes a keyword argument: often its own."""
        names = {each.kind: name for name, each in self._signature.parameters.items()}
        taken = self._signature.parameters.get(keyword)
        if taken is not None and taken.kind in (taken.POSITIONAL_OR_KEYWORD, taken.KEYWORD_ONLY):
            return keyword
        return names.get(inspect.Parameter.VAR_KEYWORD, keyword)


def _positional_arity(signature: inspect.Signature) -> range:
    """Return the numbers of arguments that fit if all of them are positional."""
    least = most = 0
    for parameter in signature.parameters.values():
        required = parameter.default is parameter.empty
        if parameter.kind is parameter.VAR_POSITIONAL:
            most = 2**31
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            least += required
            most += 1
        elif parameter.kind is parameter.KEYWORD_ONLY and required:
            return range(0)
    return range(least, most + 1)
