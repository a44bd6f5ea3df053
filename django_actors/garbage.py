"""
The garbage collector rests while a project is imported: it finds nothing, and takes long for it.
"""

from __future__ import annotations

import gc

_rests = False


def rest() -> None:
    """Collect nothing until ``go_on()``, unless the project has switched it off itself."""
    global _rests
    _rests = gc.isenabled()
    gc.disable()


def go_on() -> None:
    """Collect again, but do not look at what has come in the meantime: it is there to stay."""
    global _rests
    if _rests:
        _rests = False
        gc.freeze()
        gc.enable()
