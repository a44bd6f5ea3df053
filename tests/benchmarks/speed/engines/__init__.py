"""
A module for each engine: its task, and how to send it.

Each has ``prepare()``, which leaves an empty queue, ``send(kind, number)``, and, where the engine
can do it in one round trip, ``send_batch(calls)`` with pairs of kind and number.
"""
