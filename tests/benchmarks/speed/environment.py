"""The environment of the contenders: made once, and again when the pinned packages change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PEERS = Path(__file__).resolve().parent.parent / "peers.txt"


def make_environment(directory: Path) -> Path:
    """
    Make a virtual environment with what ``peers.txt`` pins, unless it is there already.

    Returns:
        Its Python.
    """
    python = directory / "bin" / "python"
    stamp = directory / "peers.txt"
    if not stamp.exists() or stamp.read_text() != PEERS.read_text():
        print(f"Installing the peers to {directory}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(PEERS)]
        subprocess.run(install, check=True)
        stamp.write_text(PEERS.read_text())
    return python


def clean_environment(**variables: str) -> dict[str, str]:
    """Return the environment of a contender: nothing that configures one of them, and these."""
    hidden = ("ACTORS_", "CELERY_", "DATABASE_URL", "DJANGO_", "PROCRASTINATE_", "PYTHON", "RQ_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(hidden)}
    return {**kept, "PYTHONPATH": str(ROOT), **variables}
