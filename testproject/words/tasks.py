"""
The actors of this app. `runactors` finds them because the module is called tasks.

An actor may run twice for one message (at least once, never lost), so these
write the same row again instead of adding one.
"""

import re
import time
from datetime import timedelta
from urllib.request import urlopen

from django_actors import actor

from .models import Page

# The lower number runs first, like the ticket you draw in a queue.
PRIORITY_HIGH = 0
PRIORITY_LOW = 100


class PageUnavailable(Exception):
    """A page could not be read; perhaps it can be read later."""


class BadAddress(ValueError):
    """A mail cannot be sent to this, neither now nor later."""


class NoMailServer(OSError):
    """A mail cannot be sent now; perhaps it can be sent later."""


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


@actor(
    queue_name="mail",
    priority=PRIORITY_HIGH,
    max_retries=5,
    min_backoff=timedelta(hours=1),
    throws=BadAddress,
    sensitive=["to"],
)
def mail_report(url: str, to: str) -> None:
    """Send the words of a page to a reader. The demo has nobody to carry the mail."""
    if "@" not in to:
        raise BadAddress(f"{to} is no address.")
    raise NoMailServer(f"There is no mail server that would take the report on {url}.")


@actor(queue_name="newsletter", priority=PRIORITY_LOW)
def send_newsletter(number: int) -> None:
    """Send a newsletter. The demo pauses its queue, until somebody resumes it in the admin."""
    print(f"Newsletter {number} is sent.")


@actor(priority=PRIORITY_LOW, notify_shutdown=True)
def keep_watch(url: str, seconds: int) -> None:
    """Read a page again and again, for somebody who looks at what workers run."""
    for _ in range(seconds):
        fetch_words(url)
        time.sleep(1)


def fetch_words(url: str) -> list[str]:
    """Return the words of the page at *url*, without its markup."""
    try:
        with urlopen(url, timeout=10) as response:
            html = response.read().decode(errors="replace")
    except OSError as error:
        raise PageUnavailable(f"{url} could not be read: {error}") from None
    return re.findall(r"[^\W\d_]+", re.sub(r"<[^>]+>", " ", html))
