"""A middleware that ends each worker process before it is ready, while a file is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django_actors.middleware import Middleware


class Poison(Middleware):
    """
    Args:
        path: Of the file.
    """

    def __init__(self, *, path: str) -> None:
        self._path = Path(path)

    def after_process_boot(self, broker: Any) -> None:
        if self._path.exists():
            os._exit(7)
