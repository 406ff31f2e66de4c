"""Measures rehydrate.loads against marshal.loads, round by round: warm, with the collector of cycles, and cold.

    python python/benches/loads.py [--rounds 15] [--path direct|constructor|marshal] [warm] [collected] [cold]

Loads the standard library without its tests, compiled by this interpreter, and then five single modules, twenty times each.
Each row is of processes of its own, which do nothing else, with the hook installed, as in an application. "warm" is one process
that loads every stream once before it is timed, without the collector; which side comes first in a round is left to chance, as it
matters whose memory was freed before. "collected" is the same with the collector. "cold" is fresh processes, one for each round of
each side, which load each stream once, without the collector, marshal's without the hook; what is found out about the interpreter
at the first load is part of that, unless --path names a way. Results are kept alive until all are there; then freeing them is timed. Times are of the thread's
CPU, in ms, of the fastest round. Ratios are marshal's time by ours: of the fastest rounds, and in brackets the median of the
rounds' own.
"""

import argparse
import marshal
import sys
import sysconfig
import tempfile
import warnings
from pathlib import Path

import rehydrate
from figures import in_child, spelled
from rehydrate import _native

SINGLE = ["argparse", "typing", "inspect", "_pydecimal", "email/_header_value_parser"]
APART = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__"}

#: What both kinds of children begin with: a function that loads everything, and gives the seconds of it and of freeing it.
TIMED = """\
import gc, json, marshal, random, sys, time
import rehydrate
from rehydrate import _native
_, file, path, *rest = sys.argv
with open(file, "rb") as opened:
    data = marshal.load(opened)
if path:
    _native._force_path(path)
gc.disable()
def timed(load, data, times=1):
    data = data * times
    start = time.thread_time()
    results = [load(each) for each in data]
    loaded = time.thread_time()
    results.clear()
    return (loaded - start) / times, (time.thread_time() - loaded) / times
"""

#: Loads the dumps and the streams that a file holds by turns, so many times at once, in so many rounds.
WARM = TIMED + """\
times, rounds, collected = map(int, rest)
rehydrate.install()
ways = [(marshal.loads, data[0], []), (rehydrate.loads, data[1], [])]
for load, each, _ in ways:
    timed(load, each)
if collected:
    gc.enable()
for _ in range(rounds):
    for load, each, side in random.sample(ways, len(ways)):
        gc.collect()
        side.append(timed(load, each, times))
print(json.dumps([side for *_, side in ways]))
"""

#: Loads what a file holds once, by the way that is named.
COLD = TIMED + """\
if rest == ["rehydrate"]:
    rehydrate.install()
print(json.dumps(timed(rehydrate.loads if rest == ["rehydrate"] else marshal.loads, data)))
"""


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


def warm(dumps, streams, rounds, path, times, collected):
    """The times of both sides, a round each: of loading, and of freeing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "both")
        file.write_bytes(marshal.dumps([dumps, streams]))
        return in_child(WARM, file, path, times, rounds, int(collected))


def cold(dumps, streams, rounds, path):
    """As `warm`, in processes of their own."""
    sides = {"marshal": [], "rehydrate": []}
    with tempfile.TemporaryDirectory() as folder:
        for way, data in zip(sides, (dumps, streams)):
            Path(folder, way).write_bytes(marshal.dumps(data))
        for _ in range(rounds):
            for way, side in sides.items():
                side.append(in_child(COLD, Path(folder, way), path, way))
    return sides.values()


def report(title, theirs, ours):
    load, free, both = ([[part(each) for each in side] for side in (theirs, ours)] for part in (
        lambda each: each[0], lambda each: each[1], sum
    ))  # fmt: skip
    times = "  ".join(f"{min(side) * 1000:9.3f}" for part in (load, free) for side in part)
    print(f"{title:32} {times}   {spelled(*load)}  {spelled(*free)}  {spelled(*both)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="warm, collected or cold; otherwise all")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--path", choices=["direct", "constructor", "marshal"], help="make code objects so")
    given = parser.parse_args()
    all_kinds = ["warm", "collected", "cold"]
    if unknown := set(given.kinds) - set(all_kinds):
        parser.error(f"there is no {', '.join(sorted(unknown))}: choose from {', '.join(all_kinds)}")
    _native._force_path(given.path)
    modules = {name: marshal.dumps(code) for name, code in library()}
    streams = {name: rehydrate.dumps(marshal.loads(dump)) for name, dump in modules.items()}
    print(f"CPython {sys.version.split()[0]}, path {rehydrate.status()['path']}; milliseconds of marshal and of ours, and ratios")
    rows = [(f"standard library, {len(modules)} modules", list(modules), 1), *((name, [name], 20) for name in SINGLE)]
    for kind in given.kinds or all_kinds:
        print(f"{kind:32} {'load':^20}  {'free':^20}   {'load':13}  {'free':13}  together")
        for title, names, times in rows:
            data = [modules[name] for name in names], [streams[name] for name in names]
            if kind == "cold":
                report(title, *cold(*data, given.rounds, given.path or ""))
            else:
                report(title, *warm(*data, given.rounds, given.path or "", times, kind == "collected"))


if __name__ == "__main__":
    main()
