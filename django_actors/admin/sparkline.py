"""
Small pictures of numbers over time, as SVG that needs no style of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

BAR = 5
GAP = 1
HEIGHT = 24
# Of the picture, however many bars it has.
WIDTH = 96


def sparkline(counts: Sequence[int], label: str) -> SafeString:
    """
    Return a bar for each of *counts*, the highest as high as the picture.

    Args:
        label: What it shows, for whoever does not see it.
    """
    most = max(counts, default=0) or 1
    width = len(counts) * (BAR + GAP)
    return format_html(
        '<svg class="actors-spark" viewBox="0 0 {} {}" width="{}" height="{}" '
        'preserveAspectRatio="none" role="img" aria-label="{}">'
        '<title>{}</title><line x1="0" y1="{}" x2="{}" y2="{}"></line>{}</svg>',
        width,
        HEIGHT,
        WIDTH,
        HEIGHT,
        label,
        label,
        HEIGHT,
        width,
        HEIGHT,
        format_html_join(
            "",
            '<rect x="{}" y="{}" width="{}" height="{}"></rect>',
            (
                (number * (BAR + GAP), HEIGHT - height, BAR, height)
                for number, height in enumerate(_heights(counts, most))
                if height
            ),
        ),
    )


def _heights(counts: Sequence[int], most: int) -> list[int]:
    # What happened at all is seen.
    return [max(2, round(count * HEIGHT / most)) if count else 0 for count in counts]
