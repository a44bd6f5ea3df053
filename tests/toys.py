"""
A supervisor with toy children, in processes of their own.

A toy child does what a file says, and writes what happens to it into a journal. So
a test can say what the next child will do, and look at what the last ones did.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.test import SimpleTestCase, tag

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 15

TOY = """
import json, os, runpy, signal, socket, sys, time

control = socket.socket(fileno=int(sys.argv[1]))
lines = control.makefile("r")
config = json.loads(lines.readline())
directory = config["directory"]

def descriptors():
    # Besides the standard streams: files by their names, all else by its kind.
    found = []
    for name in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # that of the list itself
            continue
        if int(name) > 2:
            found.append(os.path.basename(target) if target[0] == "/" else target.split(":")[0])
    return sorted(found)

def note(what, **more):
    entry = {"what": what, "pid": os.getpid(), "index": config["index"], "at": time.monotonic()}
    with open(directory + "/journal", "a") as journal:
        journal.write(json.dumps({**entry, **more}) + "\\n")

def say(**event):
    control.sendall(json.dumps(event).encode() + b"\\n")

def on_term(signum, frame):
    note("term")
    if "stubborn" not in mode:
        os._exit(0)

def on_usr1(signum, frame):
    say(event="recycle", reason="test")

def on_usr2(signum, frame):
    os._exit(0)

with open(directory + "/mode") as file:
    mode = file.read().split()
if "slow" in mode:
    note("started")
    time.sleep(0.3)
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})
note("boot", mode=mode, config=config, path=os.environ.get("PYTHONPATH"), open=descriptors())
if "fail" in mode:
    say(event="failed", error="It does not\\nimport.")
    os._exit(int(mode[1]))
if "hang" in mode:
    signal.pause()
signal.signal(signal.SIGTERM, on_term)
signal.signal(signal.SIGUSR1, on_usr1)
signal.signal(signal.SIGUSR2, on_usr2)
if "run" in mode:
    # By its path: the whole package would take ten times as long to import.
    board = runpy.run_path(config["board_module"])["Board"].open(config["board"])
    board.owner = f"toy-{os.getpid()}"
    board.begin(0, f"message-{os.getpid()}", time.monotonic() + float(mode[mode.index("run") + 1]))
if "recover" in mode:
    for path, _ in config["dead_boards"]:
        say(event="recovered", board=path)
note("ready")
say(event="ready")
for line in lines:
    event = json.loads(line)
    note("told", **event)
    if "recover" in mode:
        say(event="recovered", board=event["board"])
note("orphan")
if "linger" in mode:
    signal.pause()
"""

SUPERVISOR = """
import contextlib, json, os, signal, sys, threading
from django_actors import board, logs, pidfile, supervisor
from django_actors.crew import Limits

options = json.loads(sys.argv[1])
board.memory_directory = lambda: options["directory"]
logs.setup(2)
class Listener:
    def failed(self, *told):
        # In one piece: the log is written at the same time.
        print(" ".join(map(str, ("failed", *told))), file=sys.stderr, flush=True)

    def started(self, *told):
        print(" ".join(map(str, ("started", *told))), file=sys.stderr, flush=True)

toy = options.pop("toy")

def be_a_toy(control):
    sys.argv[1:] = [str(control.detach())]
    with open(toy) as file:
        code = file.read()
    exec(compile(code, toy, "exec"), {"__name__": "toy"})
    os._exit(0)

if options.pop("thread", False):
    threading.Thread(target=threading.Event().wait, name="Other", daemon=True).start()
pid_file = options.pop("pid_file", None)
boss = supervisor.Supervisor(
    [sys.executable, "-S", toy],
    config={"directory": options["directory"], "board_module": board.__file__},
    limits=Limits(**options.pop("limits")),
    starts=Listener() if options.pop("listen", False) else None,
    body=be_a_toy if options.pop("forks") else None,
    **{name: options[name] for name in options if name != "directory"},
)
signal.signal(signal.SIGUSR1, lambda *_: boss.reload("an edit"))
with pidfile.pid_file(pid_file) if pid_file else contextlib.nullcontext():
    code = boss.run()
sys.exit(code)
"""

Entry = dict[str, Any]


@tag("processes")
class ToySupervisorCase(SimpleTestCase):
    """
    Starts supervisors, and waits for what their children note.

    Attributes:
        forks: Whether the children of the first generation are copies of the supervisor.
    """

    forks = False

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="django_actors_toys_")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        (self.directory / "toy.py").write_text(TOY)
        self.set_mode("work")

    def set_mode(self, *words: object) -> None:
        """Say what children do that are started from now on."""
        (self.directory / "mode.new").write_text(" ".join(map(str, words)))
        (self.directory / "mode.new").rename(self.directory / "mode")

    def supervise(
        self, processes: int = 1, limits: dict[str, float] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        arguments = {
            "toy": str(self.directory / "toy.py"),
            "directory": str(self.directory),
            "processes": processes,
            "threads": 2,
            "limits": limits or {},
            "forks": self.forks,
            **options,
        }
        with (self.directory / "log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", SUPERVISOR, json.dumps(arguments)],
                cwd=ROOT,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen[str]) -> None:
        """End a supervisor and its children, which share its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(TIMEOUT_S)

    def journal(self, *whats: str) -> list[Entry]:
        """Return what children noted so far."""
        try:
            lines = (self.directory / "journal").read_text().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
        return [entry for entry in entries if not whats or entry["what"] in whats]

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def wait_until(self, condition: Callable[[], object], what: str = "it") -> None:
        until = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > until:
                self.fail(f"Waited in vain for {what}.\n{self.journal()}\n{self.log()}")
            time.sleep(0.01)

    def wait_for(self, what: str, count: int = 1) -> list[Entry]:
        """Wait until children have noted something that often; return these notes."""
        self.wait_until(lambda: len(self.journal(what)) >= count, f"{count} times {what!r}")
        return self.journal(what)

    def wait_until_ready(self, count: int = 1) -> list[Entry]:
        """Wait until the supervisor knows of so many ready children; return their notes."""
        self.wait_until(lambda: self.log().count(" is ready.") >= count, f"{count} to be ready")
        return self.journal("ready")

    def wait_for_log(self, text: str, count: int = 1) -> None:
        self.wait_until(lambda: self.log().count(text) >= count, f"{text!r} in the log")

    def wait_for_end(self, process: subprocess.Popen[str]) -> int:
        self.wait_until(lambda: process.poll() is not None, "the end of the supervisor")
        return process.returncode
