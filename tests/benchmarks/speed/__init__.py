"""
How fast the engine is, beside its peers and beside a bare loop, in one run on the same servers.

    python -m tests.benchmarks.speed [--brokers redis,sqlite] [--rounds 5] [--write]

``environment`` makes the environment that all of them share, ``contenders`` says how each one is
started, ``engines`` holds their tasks, ``contest`` starts and stops them, ``workloads`` measures.
"""
