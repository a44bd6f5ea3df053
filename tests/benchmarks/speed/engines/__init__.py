"""
A module for each engine: its task, and how to send it.

Each has ``prepare()``, which leaves an empty queue, ``send(kind, number)``, and, where the engine
can do it in one round trip, ``send_batch(calls)`` with pairs of kind and number. Those that can
delay have ``send_later(calls)``, with the seconds since 1970 when each is due as third part.
All but rq and the floor are in a Django project that is set up, as such a project runs them.
"""
