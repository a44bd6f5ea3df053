"""
The URLs of brokers.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit


def split_url(url: str, name: str, *, several_hosts: bool = False) -> SplitResult:
    """
    Return the parts of the URL of a broker.

    Args:
        name: What the broker is called.

        several_hosts: Whether there may be several, of which nothing is read here.

    Raises:
        ValueError: it cannot be read. It is not quoted: what cannot be read may be a password.
    """
    try:
        parts = urlsplit(url)
        readable = several_hosts or parts.port is None or parts.port > 0
    except ValueError:
        readable = False
    if not readable or ("@" not in parts.netloc and "@" in url):
        raise ValueError(
            f"The URL of the {name} broker cannot be read. Is a '/', '#', '?' or '@' of its "
            "password not percent-encoded?"
        ) from None
    return parts
