"""
Tracebacks as people read them: what is theirs first.
"""

from __future__ import annotations

import re

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from django_actors.fingerprints import is_of_project

from .texts import block

_FRAME = re.compile(r'^  File "([^"\n]+)", line \d+.*\n(?:    .*\n)*', re.MULTILINE)


def own_frames(traceback: str) -> str:
    """Return the frames of the project in a traceback, and what follows the last frame."""
    frames = list(_FRAME.finditer(traceback))
    own = [found[0] for found in frames if is_of_project(found[1])]
    if not own or len(own) == len(frames):
        return ""
    return "".join(own) + traceback[frames[-1].end() :]


def show_traceback(traceback: str) -> SafeString | str:
    """Return a traceback for a page: the project's frames, and all of it to unfold."""
    own = own_frames(traceback)
    if not own:
        return block(traceback)
    return format_html(
        "{}<details><summary>{}</summary>{}</details>",
        block(own),
        _("All frames"),
        block(traceback),
    )
