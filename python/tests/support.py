"""What the tests share: projects of a few files, and interpreters that run in them with and without the hook."""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

import rehydrate

#: The folder that holds the package under test.
PACKAGE = Path(rehydrate.__file__).parent.parent
TAG = sys.implementation.cache_tag
#: What becomes of an interpreter's environment is for each test to say.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
#: A test run under PYTHONMALLOC=debug is one in its children too.
if "PYTHONMALLOC" in os.environ:
    CLEAN["PYTHONMALLOC"] = os.environ["PYTHONMALLOC"]

#: Leaves what the hook counted where the test finds it. No initializers are written into the interpreter's own folders.
HOOK = """\
import atexit, os
import rehydrate
from rehydrate import _hook

missed = []

def of_project(loader):
    return loader.path.startswith(os.environ["REHYDRATE_PROJECT"])

def counting(noted):
    def note_miss(loader, damage):
        if of_project(loader):
            missed.append(loader.name)
            noted(loader, damage)
    return note_miss

def note(path):
    with open(path, "w") as file:
        file.write(repr(rehydrate.status()["hook"] | {"missed": missed}))

# A subinterpreter has none.
if _hook is not None:
    _hook.missed = counting(_hook.missed)
rehydrate.install()
# Not that of children.
path = os.environ.pop("REHYDRATE_NOTE", None)
if path is not None:
    atexit.register(note, path)
"""


class Run:
    """What an interpreter did."""

    def __init__(self, process, hook):
        self.stdout, self.stderr, self.status = process.stdout, process.stderr, process.returncode
        #: `rehydrate.status()["hook"]` at its end, with the names of those modules of the project that were "missed"; None
        #: if it ran without.
        self.hook = hook

    def __repr__(self):
        return f"exit status {self.status}\n--- stdout ---\n{self.stdout}--- stderr ---\n{self.stderr}"

    def shown(self):
        return self.status, self.stdout, self.stderr


class Project(unittest.TestCase):
    """A test with a folder of its own."""

    maxDiff = None

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="rehydrate-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.root = self.folder / "project"
        self.root.mkdir()
        for name, text in [("hook", HOOK), ("plain", "")]:
            (self.folder / name).mkdir()
            (self.folder / name / "sitecustomize.py").write_text(text)

    def write(self, name, text="", folder=None):
        """Writes a file, and gives its path. Without `folder`, it stands in the project."""
        path = (folder or self.root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def cache(self, name, extension="pyinit", level=""):
        """The path of a source's cache."""
        source = self.root / name
        return source.parent / "__pycache__" / f"{source.stem}.{TAG}{level}.{extension}"

    def python(self, *arguments, hook=True, env=None, cwd=None, check=True, stdin=None):
        """Runs an interpreter in the project; with the hook unless told otherwise."""
        note = self.folder / "note.txt"
        note.unlink(missing_ok=True)
        path = [self.folder / ("hook" if hook else "plain"), PACKAGE]
        environment = CLEAN | {"PYTHONPATH": os.pathsep.join(map(str, path)), "REHYDRATE_NOTE": str(note)}
        environment |= {"REHYDRATE_PROJECT": str(self.folder)} | (env or {})
        process = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd or self.root,
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=300,
        )
        counted = ast.literal_eval(note.read_text()) if note.exists() else None
        run = Run(process, counted)
        if check:
            self.assertEqual(run.status, 0, run)
        return run

    def forget(self):
        """Removes all caches of the project."""
        for folder in list(self.root.rglob("__pycache__")):
            shutil.rmtree(folder)

    def as_without(self, *arguments, hits=1, env=None, cwd=None, stdin=None, check=True, before=lambda: None):
        """Checks that an interpreter shows the same without the hook, with it and no caches, with it and the .pyc alone, and
        with it and initializers, of which it takes at least `hits`. Gives the last run."""

        def run(hook):
            before()
            return self.python(*arguments, hook=hook, env=env, cwd=cwd, stdin=stdin, check=False)

        self.forget()
        plain = run(hook=False)
        if check:
            self.assertEqual(plain.status, 0, plain)
        with_pyc = run(hook=True)
        self.forget()
        cold = run(hook=True)
        warm = run(hook=True)
        for kind, other in [("with a .pyc", with_pyc), ("cold", cold), ("warm", warm)]:
            self.assertEqual(other.shown(), plain.shown(), kind)
        self.assertGreaterEqual(warm.hook["hits"], hits, warm.hook)
        self.assertIsNone(warm.hook["last_failure"])
        self.assertIsNone(warm.hook["warning"])
        return warm
