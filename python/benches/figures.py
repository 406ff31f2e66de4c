"""What the benchmarks share: fresh processes that measure themselves, and what is said of two rows of measurements."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import rehydrate

#: What a child is given is for each benchmark to say: the environment of whoever starts it decides nothing, nor (by -S) does
#: what the .pth files of this machine import before a child begins.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def in_child(script, *arguments, path=(), environment=()):
    """What a script prints as JSON in an interpreter of its own, which finds the package, and what lies in the folders of
    `path`."""
    folders = [Path(rehydrate.__file__).parent.parent, *path]
    process = subprocess.run(
        [sys.executable, "-S", "-c", script, *map(str, arguments)],
        env=CLEAN | {"PYTHONPATH": os.pathsep.join(map(str, folders))} | dict(environment),
        capture_output=True,
        text=True,
    )
    if process.returncode != 0:
        raise RuntimeError(f"a child ended with exit status {process.returncode}:\n{process.stderr}")
    return json.loads(process.stdout.splitlines()[-1])


def ratios(theirs, ours):
    """How many times as fast ours are: of the fastest rounds, and the median of the rounds' own."""
    return min(theirs) / min(ours), statistics.median(a / b for a, b in zip(theirs, ours))


def spelled(theirs, ours):
    fastest, median = ratios(theirs, ours)
    return f"{fastest:5.2f} ({median:5.2f})"
