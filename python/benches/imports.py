"""Measures real imports in fresh processes, plain and with the hook, in turn.

    python python/benches/imports.py [--rounds 20] [--packages FOLDER] [library] [django] [sympy] [sqlalchemy]

"library" imports every public top-level module of the standard library that a probe imports without a warning, a word or a
process, about 180 of them; the others import what an application of them begins with, from FOLDER (`pip install --target
FOLDER django sympy sqlalchemy`). Without names, what is to be had is measured.

Time is from the first statement that an interpreter executes after its start (and `site`) to the end of the last import, so
with the hook, importing and installing that is part of it. All caches are in a folder of their own, and written before
anything is measured: the .pyc that both ways need, and the initializers. Said are, for each way, the fastest and the median
milliseconds of the clock and of the processor, and, on Linux, the median MiB of memory in use at the end and at most;
and how many times as fast an import is as the plain one: of the fastest rounds, and in brackets the median of the rounds'
own. The exit status is 1 if the hook had not every module from its initializer.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from figures import in_child, spelled

#: What each way executes ahead of the imports.
WAYS = {"plain": "", "hook": "import rehydrate; rehydrate.install()"}

DJANGO = """
from django.conf import settings
apps = ["admin", "auth", "contenttypes", "messages", "sessions"]
settings.configure(INSTALLED_APPS=[f"django.contrib.{name}" for name in apps])
import django
django.setup()
import django.contrib.admin, django.contrib.auth.views, django.core.management, django.test, django.views.generic
"""

#: What an application begins with.
APPLICATIONS = {
    "django": DJANGO,
    "sympy": "import sympy",
    "sqlalchemy": "import sqlalchemy, sqlalchemy.orm, sqlalchemy.dialects.postgresql, sqlalchemy.dialects.sqlite",
}

#: Finds the modules of the standard library that can be imported anywhere.
PROBE = """\
import contextlib, io, json, sys, warnings

CHANGES = "os.exec os.fork os.forkpty os.posix_spawn os.system socket.connect subprocess.Popen webbrowser.open".split()

def refuse(event, arguments):
    if event in CHANGES or event == "open" and isinstance(arguments[1], str) and not {*arguments[1]}.isdisjoint("wxa+"):
        raise PermissionError(event)

sys.dont_write_bytecode = True
sys.addaudithook(refuse)
warnings.simplefilter("error")
names = []
for name in sorted(name for name in sys.stdlib_module_names if not name.startswith("_")):
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            __import__(name)
    except BaseException:
        continue
    # What is installed can stand in for a module of the library: setuptools does, for distutils.
    file = getattr(sys.modules[name], "__file__", None) or ""
    if not said.getvalue() and "site-packages" not in file:
        names.append(name)
print(json.dumps(names))
"""

#: Imports, and measures itself.
CHILD = """\
import time
start = time.perf_counter(), time.process_time()
{way}
{imports}
end = time.perf_counter(), time.process_time()
import json, sys
figures = dict(wall=end[0] - start[0], cpu=end[1] - start[1])
figures["modules"] = sum(
    getattr(getattr(module, "__spec__", None), "cached", None) is not None for module in list(sys.modules.values())
)
try:
    with open("/proc/self/status") as status:
        for line in status:
            name, value = line.split(":", 1)
            if name in ("VmRSS", "VmHWM"):
                figures[name] = int(value.split()[0]) / 1024
except FileNotFoundError:
    pass
if "rehydrate" in sys.modules:
    figures["hook"] = sys.modules["rehydrate"].status()["hook"]
print(json.dumps(figures))
"""


class Imports:
    """What is imported, in the ways that are compared."""

    def __init__(self, imports, cache, path):
        self.imports, self.path = imports, path
        self.environment = {"PYTHONPYCACHEPREFIX": str(cache)}

    def run(self, way):
        script = CHILD.format(way=WAYS[way], imports=self.imports)
        return in_child(script, path=self.path, environment=self.environment)

    def measure(self, rounds):
        """The figures of each way, a round each."""
        # The first of each writes what is missing, and the second reads it.
        warmed = {way: [self.run(way), self.run(way)][1] for way in WAYS}
        figures = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way, rows in figures.items():
                rows.append(self.run(way))
        return warmed, figures


def report(title, figures):
    """A line for each way."""
    columns = {way: {name: [row[name] for row in rows] for name in rows[0] if name != "hook"} for way, rows in figures.items()}
    plain = columns["plain"]
    for way, of in columns.items():
        times = "  ".join(f"{min(of[clock]) * 1000:7.1f} {statistics.median(of[clock]) * 1000:7.1f}" for clock in ("wall", "cpu"))
        memory = " ".join(f"{statistics.median(of[name]):7.1f}" for name in ("VmRSS", "VmHWM") if name in of)
        faster = "  ".join(spelled(plain[clock], of[clock]) for clock in ("wall", "cpu")) if way != "plain" else ""
        print(f"{title:24} {way:6} {times}  {memory:15}  {faster}", flush=True)
        title = ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="library, django, sympy or sqlalchemy; otherwise all")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--packages", type=Path, help="where django, sympy and sqlalchemy are installed, if not here")
    given = parser.parse_args()
    if unknown := set(given.names) - {"library", *APPLICATIONS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    path = [given.packages.resolve()] if given.packages else []
    incomplete = []
    print(f"CPython {sys.version.split()[0]}")
    print(f"{'':24} {'':6} {'ms of the clock':^15}  {'of a processor':^15}  {'MiB in use, most':15}  {'clock':13}  processor")
    for name in given.names or ["library", *APPLICATIONS]:
        imports = APPLICATIONS.get(name) or f"import {', '.join(in_child(PROBE))}"
        with tempfile.TemporaryDirectory(prefix="rehydrate-") as cache:
            try:
                warmed, figures = Imports(imports, cache, path).measure(given.rounds)
            except RuntimeError as error:
                if given.names:
                    raise
                print(f"{name:24} not measured: {str(error).splitlines()[-1]}", flush=True)
                continue
        report(f"{name}, {warmed['plain']['modules']} modules", figures)
        for row in (warmed["hook"], *figures["hook"]):
            if row["hook"]["misses"] or not row["hook"]["hits"]:
                incomplete.append(f"{name}: {row['hook']}")
    if incomplete:
        print("\n".join(incomplete[:5]), file=sys.stderr)
    return 1 if incomplete else 0


if __name__ == "__main__":
    sys.exit(main())
