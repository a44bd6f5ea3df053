"""
The actors of this app. `runactors` finds them because the module is called tasks.

An actor may run twice for one message (at least once, never lost), so these
write the same row again instead of adding one.
"""

import re
from urllib.request import urlopen

from django_actors import actor

from .models import Page

# The lower number runs first, like the ticket you draw in a queue.
PRIORITY_HIGH = 0
PRIORITY_LOW = 100


class PageUnavailable(Exception):
    """A page could not be read; perhaps it can be read later."""


@actor(priority=PRIORITY_LOW, max_retries=2, min_backoff=500)
def count_words(url: str) -> None:
    """Count the words of a page and remember the number."""
    count = len(fetch_words(url))
    Page.objects.update_or_create(url=url, defaults={"words": count})
    print(f"There are {count} words at {url!r}.")


@actor(priority=PRIORITY_HIGH)
def find_longest_word(url: str) -> None:
    """Find the longest word of a page, for somebody who is looking at the screen."""
    word = max(fetch_words(url), key=len, default="")
    Page.objects.update_or_create(url=url, defaults={"longest_word": word})
    print(f"The longest word at {url!r} is {word!r}.")


def fetch_words(url: str) -> list[str]:
    """Return the words of the page at *url*, without its markup."""
    try:
        with urlopen(url, timeout=10) as response:
            html = response.read().decode(errors="replace")
    except OSError as error:
        raise PageUnavailable(f"{url} could not be read: {error}") from None
    return re.findall(r"[^\W\d_]+", re.sub(r"<[^>]+>", " ", html))
