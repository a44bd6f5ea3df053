"""
Where Redis is: what a URL, a client of redis-py or plain arguments say of it.

Nothing here connects to anything, and no error names a password.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlunsplit

import redis
from redis.connection import Connection, SSLConnection

from .urls import split_url

Node = tuple[str, int]

# redis-py types only a part of what it offers.
_client: Any = redis

DEFAULT_PORT = 6379
SENTINEL_PORT = 26379

# What an URL says already, and what says the same beside it.
PLACE_ARGUMENTS = ("host", "port", "db", "username", "password", "client")

# What connections are made with always, or never.
_NOT_OURS = (
    *("protocol", "decode_responses", "retry", "retry_on_timeout", "retry_on_error"),
    *("max_connections", "host", "port"),
)

# What a client of redis-py says of how to connect; its timeouts suit what it does itself.
_OF_CLIENTS = (
    *("host", "port", "path", "db", "username", "password", "credential_provider"),
    *("client_name", "redis_connect_func", "socket_keepalive", "socket_keepalive_options"),
)


@dataclass(frozen=True)
class Place:
    """
    Where Redis is, as the settings say it.

    Attributes:
        nodes: Servers to begin with: the one, the Sentinels, or some of a Cluster.

        options: Arguments of redis-py's connections.

        kind: ``server``, ``sentinel`` or ``cluster``; a server may turn out to be a Cluster.

        service: What the Sentinels call the service.

        sentinel_options: Arguments of the connections to the Sentinels.

        namespace: The prefix of all keys, where the URL names one.
    """

    nodes: tuple[Node, ...]
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    kind: str = "server"
    service: str = ""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    connection_class: type[Any] = Connection
    namespace: str = ""

    def __str__(self) -> str:
        """Say where, without a password."""
        if "path" in self.options:
            return str(self.options["path"])
        nodes = ",".join(f"{host}:{port}" for host, port in self.nodes)
        database = f"/{self.options.get('db') or 0}" if self.kind != "cluster" else ""
        return f"{self.service} of {nodes}{database}" if self.service else f"{nodes}{database}"

    @property
    def is_encrypted(self) -> bool:
        return issubclass(self.connection_class, SSLConnection)

    @property
    def is_local(self) -> bool:
        local = ("127.", "localhost", "::1")
        return "path" in self.options or all(host.startswith(local) for host, _ in self.nodes)


def place_from_url(url: str, options: Mapping[str, Any]) -> Place:
    """
    Read ``redis://``, ``rediss://`` and ``redis+sentinel://host,host/service/db``.

    Raises:
        ValueError: it is no such URL. The URL itself is not named: it may hold a password.
    """
    if url.startswith("redis+sentinel://"):
        return _sentinel_place(url, options)
    split_url(url, "Redis")
    try:
        told = _client.connection.parse_url(url)
    except ValueError as error:
        # What urllib says may quote the part with the password.
        known = str(error) if "Invalid value for" in str(error) else "it cannot be read."
        raise ValueError(f"The URL of the Redis broker is wrong: {known}") from None
    return place_from_arguments({**told, **options})


def place_from_arguments(given: Mapping[str, Any]) -> Place:
    """Return the place that arguments of ``redis.Redis`` describe."""
    options = dict(given)
    node = (options.get("host") or "localhost", int(options.get("port") or DEFAULT_PORT))
    cluster = _is_true(options.pop("cluster", False))
    encrypted = _is_true(options.pop("ssl", False))
    connection_class = options.pop("connection_class", SSLConnection if encrypted else Connection)
    return Place(
        (node,),
        kind="cluster" if cluster else "server",
        connection_class=connection_class,
        namespace=options.pop("namespace", ""),
        options=_clean(options),
    )


def _sentinel_place(url: str, options: Mapping[str, Any]) -> Place:
    parts = split_url(url, "Redis", several_hosts=True)
    login, _, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError(
            "A redis+sentinel:// URL ends with the name of the service, such as "
            "redis+sentinel://host1:26379,host2:26379/mymaster/0."
        )
    login = f"{login}@" if login else ""
    plain = place_from_url(
        urlunsplit(("redis", f"{login}sentinel", f"/{database}", parts.query, "")), options
    )
    ours = {name: value for name, value in plain.options.items() if "sentinel_" not in name}
    return replace(
        plain,
        nodes=tuple(_node(host, SENTINEL_PORT) for host in hosts.split(",")),
        options=ours,
        kind="sentinel",
        service=service,
        sentinel_options={
            name.removeprefix("sentinel_"): value
            for name, value in plain.options.items()
            if name.startswith("sentinel_")
        },
    )


def _node(text: str, port: int) -> Node:
    parts = split_url(f"//{text}", "Redis")
    return parts.hostname or "localhost", parts.port or port


def place_of_client(client: Any) -> Place:
    """Return the place a client of redis-py is connected to; the client is not used itself."""
    if isinstance(client, _client.RedisCluster):
        nodes = tuple((node.host, int(node.port)) for node in client.get_nodes())
        options = _of_client(client.get_connection_kwargs())
        return replace(place_from_arguments(options), nodes=nodes, kind="cluster")
    pool = client.connection_pool
    options = _of_client(pool.connection_kwargs)
    if manager := getattr(pool, "sentinel_manager", None):
        sentinels = [each.connection_pool.connection_kwargs for each in manager.sentinels]
        return Place(
            tuple((each["host"], int(each["port"])) for each in sentinels),
            _clean(options),
            kind="sentinel",
            service=pool.service_name,
            sentinel_options=_clean(_of_client(sentinels[0])),
            connection_class=(
                SSLConnection if issubclass(pool.connection_class, SSLConnection) else Connection
            ),
        )
    return place_from_arguments({**options, "connection_class": pool.connection_class})


def _of_client(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in options.items()
        if value is not None and (name in _OF_CLIENTS or name.startswith("ssl_"))
    }


def _clean(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in _NOT_OURS}


def _is_true(value: Any) -> bool:
    return str(value).lower() in ("1", "true", "yes")
