"""Measures real imports in fresh processes, plain, with the hook and with a bundle, in turn.

    python python/benches/imports.py [--rounds 20] [--bundle] [--packages FOLDER] [library] [django] [sympy] [sqlalchemy]

"library" imports every public top-level module of the standard library that a probe imports without a warning, a word or a
process, about 180, which import 60 more; the others import what an application of them begins with, from FOLDER (`pip install --target
FOLDER django sympy sqlalchemy`) or from where this interpreter installs. Without names, what is to be had is measured.

Time is from the first statement that an interpreter executes after its start (and `site`) to the end of the last import, so
with the hook, importing and installing that is part of it. No .pth is executed (-S): on some machines one imports a hundred
of these modules before anything is measured. All caches are in a folder of their own, and written before anything is
measured: the .pyc that all ways need, the initializers, and the bundle, of the modules that are imported. Said are, for each
way, the fastest and the median milliseconds of the clock and of the processor, and, on Linux, the median MiB of memory in use
at the end and at most; and how many times as fast an import is as the plain one: of the fastest rounds, and in brackets the
median of the rounds' own. The exit status is 1 if a module did not come from where the way should have it.
"""

import argparse
import statistics
import sys
import sysconfig
import tempfile
from pathlib import Path

from figures import in_child, spelled

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
import site, time
start = time.perf_counter(), time.process_time()
{way}
{imports}
end = time.perf_counter(), time.process_time()
import json, sys
figures = dict(wall=end[0] - start[0], cpu=end[1] - start[1])
specs = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
figures["sources"] = sorted({{spec.origin for spec in specs if getattr(spec, "cached", None) is not None}})
located = {{spec.origin for spec in specs if getattr(spec, "has_location", False)}}
figures["extensions"] = sorted(located.difference(figures["sources"]))
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


#: Runs the package's command line, whose last word is no JSON.
BUNDLE = """\
import sys
from rehydrate.__main__ import main
status = main(sys.argv[1:])
print("null")
sys.exit(status)
"""


class Imports:
    """What is imported, and what each way executes ahead of that."""

    def __init__(self, imports, cache, path):
        self.imports, self.cache, self.path = imports, cache, path
        self.ways = {"plain": "", "hook": "import rehydrate; rehydrate.install()"}
        # The first of each writes what is missing.
        self.n_modules = len([self.run(way) for way in self.ways][0]["sources"])

    def run(self, way):
        return self.child(CHILD.format(way=self.ways[way], imports=self.imports))

    def child(self, script, *arguments):
        return in_child(script, *arguments, path=self.path, environment={"PYTHONPYCACHEPREFIX": str(self.cache)})

    def bundle(self):
        """Adds the way of a bundle that holds what the plain one imports."""
        bundle = self.cache / "app.pybundle"
        imported = self.run("plain")
        self.child(BUNDLE, "bundle", *imported["sources"], *imported["extensions"], "-o", bundle)
        self.ways["bundle"] = f"import rehydrate; rehydrate.install(bundles=[{str(bundle)!r}])"

    def measure(self, rounds):
        """The figures of each way, a round each; and what the hook missed."""
        figures = {way: [] for way in self.ways}
        for _ in range(rounds):
            for way, rows in figures.items():
                rows.append(self.run(way))
        hooks = [(way, row.get("hook")) for way, rows in figures.items() for row in rows]
        return figures, [f"{way}: {hook}" for way, hook in hooks if way != "plain" and not is_complete(way, hook)]


def is_complete(way, hook):
    """Whether every module came from where the way has it."""
    hits = sum(bundle["hits"] for bundle in hook["bundles"]) if way == "bundle" else hook["hits"]
    return hits > 0 and hook["misses"] == 0


def report(title, figures):
    """A line for each way."""
    plain = figures["plain"]
    for way, rows in figures.items():
        of = {name: [row[name] for row in rows] for name in ("wall", "cpu", "VmRSS", "VmHWM") if name in rows[0]}
        faster = [spelled([row[clock] for row in plain], of[clock]) for clock in ("wall", "cpu") if way != "plain"]
        times = "  ".join(f"{min(of[clock]) * 1000:7.1f} {statistics.median(of[clock]) * 1000:7.1f}" for clock in ("wall", "cpu"))
        memory = " ".join(f"{statistics.median(of[name]):7.1f}" for name in ("VmRSS", "VmHWM") if name in of)
        print(f"{title:24} {way:6} {times}  {memory:15}  {'  '.join(faster)}".rstrip(), flush=True)
        title = ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="library, django, sympy or sqlalchemy; otherwise all")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--bundle", action="store_true", help="import from a bundle, too")
    parser.add_argument("--packages", type=Path, help="where django, sympy and sqlalchemy are installed, if not here")
    given = parser.parse_args()
    if unknown := set(given.names) - {"library", *APPLICATIONS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    packages = given.packages.resolve() if given.packages else sysconfig.get_path("purelib")
    incomplete = []
    print(f"CPython {sys.version.split()[0]}")
    print(f"{'':24} {'':6} {'ms of the clock':^15}  {'of a processor':^15}  {'MiB in use, most':15}  {'clock':13}  processor")
    for name in given.names or ["library", *APPLICATIONS]:
        statements = APPLICATIONS.get(name) or f"import {', '.join(in_child(PROBE))}"
        with tempfile.TemporaryDirectory(prefix="rehydrate-") as cache:
            try:
                imports = Imports(statements, Path(cache), [packages] if name in APPLICATIONS else [])
            except RuntimeError as error:
                if given.names:
                    raise
                print(f"{name:24} not measured: {str(error).splitlines()[-1]}", flush=True)
                continue
            if given.bundle:
                imports.bundle()
            figures, missed = imports.measure(given.rounds)
        report(f"{name}, {imports.n_modules} modules", figures)
        incomplete += missed
    if incomplete:
        print("not from initializers:", *incomplete[:5], sep="\n", file=sys.stderr)
    return 1 if incomplete else 0


if __name__ == "__main__":
    sys.exit(main())
