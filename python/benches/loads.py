"""Measures rehydrate.loads against marshal.loads, in one process, in turn.

    python python/benches/loads.py [--rounds 15] [--collector] [--path direct|constructor|marshal]

Loads the standard library without its tests, compiled by this interpreter, and then five single modules, each warm: every
stream was loaded before. Results are kept alive while a round is timed, and freeing them is timed apart. Times are of the
thread's CPU. A ratio is marshal's time by ours: of the fastest rounds, and the median of the rounds' own.
"""

import argparse
import gc
import marshal
import statistics
import sys
import sysconfig
import time
import warnings
from pathlib import Path

import rehydrate
from rehydrate import _native

SINGLE = ["argparse", "typing", "inspect", "_pydecimal", "email/_header_value_parser"]
APART = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__"}


def library():
    """The code of every module of the standard library, by its path without .py."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if path.is_file() and APART.isdisjoint(name.parts):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    yield str(name.with_suffix("")), compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
                except (SyntaxError, ValueError):
                    pass


def timed(load, data):
    """Seconds of loading everything, and of freeing it."""
    gc.collect()
    start = time.thread_time()
    results = [load(each) for each in data]
    loaded = time.thread_time()
    results.clear()
    return loaded - start, time.thread_time() - loaded


def compare(title, dumps, streams, rounds, times=1):
    theirs, ours = [], []
    for _ in range(rounds):
        theirs.append(timed(marshal.loads, dumps * times))
        ours.append(timed(rehydrate.loads, streams * times))
    load = [a[0] / b[0] for a, b in zip(theirs, ours)]
    both = [sum(a) / sum(b) for a, b in zip(theirs, ours)]
    fastest = [min(each[0] for each in side) / times * 1000 for side in (theirs, ours)]
    print(
        f"{title:32} {fastest[0]:9.3f} ms {fastest[1]:9.3f} ms"
        f"   loads {fastest[0] / fastest[1]:5.2f} ({statistics.median(load):5.2f})"
        f"   with freeing ({statistics.median(both):5.2f})"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--collector", action="store_true", help="leave the collector of cycles on")
    parser.add_argument("--path", choices=["direct", "constructor", "marshal"], help="make code objects so")
    given = parser.parse_args()
    _native._force_path(given.path)
    modules = {name: marshal.dumps(code) for name, code in library()}
    streams = {name: rehydrate.dumps(marshal.loads(dump)) for name, dump in modules.items()}
    status = rehydrate.status()
    print(f"CPython {sys.version.split()[0]}, path {status['path']}, collector {'on' if given.collector else 'off'}")
    print(f"{'':32} {'marshal':>12} {'rehydrate':>12}")
    if not given.collector:
        gc.disable()
    title = f"standard library, {len(modules)} modules"
    compare(title, list(modules.values()), list(streams.values()), given.rounds)
    for name in SINGLE:
        compare(name, [modules[name]], [streams[name]], given.rounds, times=20)


if __name__ == "__main__":
    main()
