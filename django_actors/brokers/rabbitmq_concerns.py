"""
What is unwise about a RabbitMQ server where the project really runs.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any

from django_actors.errors import BrokerUnavailable

from .concerns import Concern, unchecked
from .rabbitmq_desk import Desk
from .rabbitmq_options import Target
from .rabbitmq_topology import LaneKey, Topology


def concerns_of_place(target: Target) -> Iterator[Concern]:
    """Look at the address and the login."""
    for parameters in target.parameters:
        if is_local(parameters.host):
            continue
        if parameters.ssl_options is None:
            yield Concern(
                "W201",
                f"Messages travel to RabbitMQ at {parameters.host} as plain text.",
                "Use amqps:// in the URL, or be sure that nobody can listen in between.",
            )
        if getattr(parameters.credentials, "username", "") == "guest":
            yield Concern(
                "W202",
                f"RabbitMQ at {parameters.host} is used as 'guest', whose password is known.",
                "Give the project a user and a virtual host of its own.",
            )


def concerns_of_server(
    desk: Desk, topology: Topology, keys: Iterable[LaneKey]
) -> Iterator[Concern]:
    """Ask the server whether the queues that are there are what this project would declare."""
    names = [*(topology.lane_name(key) for key in sorted(keys)), topology.dead_name]
    for name in names:
        try:
            with desk.visit() as visit:
                if visit.call("queue_declare", queue=name, passive=True):
                    visit.call("queue_declare", **topology.declaration(name))
        except BrokerUnavailable as error:
            if "exists on RabbitMQ" in str(error):
                yield Concern("W203", str(error).partition(". Let the")[0] + ".", way_out(error))
            else:
                yield unchecked(error, id_too_old="W204")
                return


def way_out(error: Exception) -> str:
    """Return what an explained refusal says to do."""
    return "Let the" + str(error).partition(". Let the")[2]


def is_local(host: Any) -> bool:
    """Return whether an address is on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return bool(host == "localhost")
