"""Runs CPython's own tests as they are, and with every module routed through the hook; compares them test by test.

    python cpython_suite.py [-j N] [--library DIR] [--limit SECONDS] [--malloc NAME] [--ignore TEST] [MODULE ...]

First the standard library, tests included, is copied, so that the interpreter's own folders stay as they are (but for what
test_frozen imports from there: `__phello__`), and the copy is compiled into initializers. Then each module is run by regrtest from the copy, in both ways, in the same environment but
for the call of `rehydrate.install()`. A module whose tests differ is run again, and once more: what differs then, in every
run, is a difference, and the exit status is 1. (Some tests depend on the time, or on how busy the machine is: what differs
between runs without the hook is named as unsteady, and says nothing.) What takes longer than the limit is ended with all that
it started, and that is its result.
"""

import argparse
import ast
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import rehydrate

#: Each is a module of `test`, or a list of those that became a package in some version.
MODULES = """
    test_abc test_ast test_asyncgen test_asyncio.test_futures test_asyncio.test_locks test_asyncio.test_tasks
    test_asyncio.test_taskgroups test_audit test_bdb test_builtin test_call test_class test_cmd_line test_cmd_line_script
    test_code test_code_module test_compile test_compileall test_contextlib test_copy test_coroutines test_cprofile
    test_dataclasses test_decorators test_descr test_dis test_doctest test_dynamicclassattribute test_enum test_exceptions
    test_frame test_frozen test_fstring test_funcattrs test_functools test_future_stmt test_gc test_generators test_genericpath
    test_import test_importlib test_inspect test_iter test_json test_keywordonlyarg test_linecache test_listcomps test_marshal
    test_module test_modulefinder test_monitoring test_named_expressions test_opcache test_patma test_pdb test_peepholer
    test_pickle test_pkg test_pkgutil test_positional_only_arg test_profile test_py_compile test_pyclbr test_pydoc test_re
    test_reprlib test_runpy test_scope test_set test_site test_string_literals test_super test_symtable test_sys
    test_sys_setprofile test_sys_settrace test_syntax test_threadedtempfile test_threading test_threading_local test_trace
    test_traceback test_tracemalloc test_tuple test_type_annotations test_types test_typing test_unittest test_unpack
    test_userdict test_warnings test_weakref test_with test_zipimport test_zipimport_support
""".split()

HOOK = """\
import atexit, os, rehydrate
rehydrate.install()

def note(folder=os.environ["REHYDRATE_NOTES"], pid=os.getpid()):
    if os.getpid() == pid and rehydrate is not None:
        with open(f"{folder}/{pid}", "w") as file:
            file.write(repr(rehydrate.status()["hook"]))

atexit.register(note)
"""

#: Of the standard library, these are not to be compiled: they are broken on purpose, or not Python 3.
SKIPPED = r"bad_coding|badsyntax|bad_grammar|lib2to3/tests/data|site-packages|dist-packages|py2_test_grammar"


class Suite:
    """Where the runs of an interpreter take place."""

    def __init__(self, folder, library, limit, malloc, ignored):
        self.folder, self.library, self.limit, self.ignored = folder, library, limit, ignored
        self.malloc = {} if malloc is None else {"PYTHONMALLOC": malloc}
        for name, text in [("hook", HOOK), ("plain", "")]:
            (folder / name).mkdir()
            (folder / name / "sitecustomize.py").write_text(text)
        (folder / "notes").mkdir()

    def environment(self, way):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        path = [self.folder / way, Path(rehydrate.__file__).parent.parent, self.library]
        return clean | self.malloc | {
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "REHYDRATE_NOTES": str(self.folder / "notes"),
        }

    def warm(self, workers):
        """Copies the standard library, and compiles it; gives the number of initializers."""
        if not self.library.exists():
            left_out = shutil.ignore_patterns("__pycache__", "site-packages", "dist-packages", "lib-dynload", "config-*")
            shutil.copytree(sysconfig.get_path("stdlib"), self.library, symlinks=True, ignore=left_out)
        command = [sys.executable, "-m", "rehydrate", "compile", "-qq", "-j", str(workers), "-x", SKIPPED, str(self.library)]
        subprocess.run(command, env=self.environment("plain"), check=False)
        return sum(1 for _ in self.library.rglob("*.pyinit"))

    def run(self, module, way):
        """The results of a module's tests, by their names; under "" that of the module."""
        with tempfile.TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True) as folder:
            report = Path(folder, "report.xml")
            ignored = [f"--ignore={name}" for name in self.ignored]
            command = [sys.executable, "-m", "test", "--junit-xml", str(report), *ignored, module]
            results = {"": self.ended(command, folder, way)}
            if report.exists():
                for case in ElementTree.parse(report).iter("testcase"):
                    results.setdefault(case.get("name"), set()).add(_result(case))
        return {name: result if isinstance(result, str) else " + ".join(sorted(result)) for name, result in results.items()}

    def ended(self, command, folder, way):
        """How a command ends."""
        # Whoever it started may live on, and would keep a pipe open.
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=self.environment(way),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return f"exit status {process.wait(self.limit)}"
        except subprocess.TimeoutExpired:
            return f"more than {self.limit} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def hook(self):
        """What the hooks of all processes counted."""
        total = {"processes": 0, "hits": 0, "misses": 0}
        for note in (self.folder / "notes").iterdir():
            counted = ast.literal_eval(note.read_text() or "{}")
            total["processes"] += 1
            for name in ("hits", "misses"):
                total[name] += counted.get(name, 0)
        return total


def _result(case):
    """passed, skipped, failure, error, with the kind of exception."""
    kinds = [(child.tag, child.get("type") or "") for child in case if child.tag in ("failure", "error", "skipped")]
    return ", ".join(f"{tag} {kind}".strip() for tag, kind in kinds) or case.get("result", "passed")


def compare(suite, module):
    """What differs in a module, and what is unsteady: lines; how many tests it has, how often it was run, how it ended."""
    runs = {"plain": [], "hook": []}
    for _ in range(3):
        for way, results in runs.items():
            results.append(suite.run(module, way))
        names = {name for results in runs.values() for result in results for name in result}
        seen = {name: [{result.get(name, "absent") for result in results} for results in runs.values()] for name in names}
        # Whoever differs from itself says nothing of the hook.
        differing = sorted(name for name, (plain, hook) in seen.items() if not plain & hook)
        unsteady = sorted(name for name, (plain, _) in seen.items() if len(plain) > 1)
        if not differing:
            break

    def lines(names):
        spelled = [(name or "(the module)", *(" | ".join(sorted(way)) for way in seen[name])) for name in names]
        return [f"{module} {name}: {plain} without, {hook} with the hook" for name, plain, hook in spelled]

    return module, lines(differing), lines(unsteady), len(names) - 1, len(runs["plain"]), runs["plain"][0][""]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=MODULES)
    parser.add_argument("-j", "--workers", type=int, default=os.cpu_count())
    parser.add_argument("--library", type=Path, help="keep the copy of the standard library here")
    parser.add_argument("--limit", type=int, default=240, help="seconds that a module may take")
    parser.add_argument("--malloc", help="the allocator of both ways, as PYTHONMALLOC names it")
    parser.add_argument("--ignore", action="append", default=[], metavar="TEST", help="leave a test out, as regrtest does")
    given = parser.parse_args()
    # What a shell starts in the background ignores interrupts, and so would the tests, some of which interrupt themselves.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="rehydrate-suite-"))
    different, unsteady, n_tests, n_modules = [], [], 0, 0
    try:
        suite = Suite(folder, given.library or folder / "library", given.limit, given.malloc, given.ignore)
        print(f"{sys.version}: {suite.warm(given.workers)} initializers", flush=True)
        with ThreadPoolExecutor(given.workers) as pool:
            for module, *found, count, runs, ended in pool.map(lambda module: compare(suite, module), given.modules):
                n_modules += count > 0
                n_tests += count
                verdict = f"{len(found[0])} DIFFER" if found[0] else "same"
                verdict += f", {len(found[1])} unsteady" if found[1] else ""
                again = "" if runs == 1 else f", run {runs} times"
                print(f"{module:36} {count:6} tests  {ended:15} {verdict}{again}", flush=True)
                different += found[0]
                unsteady += found[1]
        counted = suite.hook()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{n_modules} modules with {n_tests} tests; the hook: {counted}; {len(different)} differences")
    for title, lines in [("differ", different), ("unsteady without the hook", unsteady)]:
        print("\n".join([f"{title}:", *lines]) if lines else f"{title}: none")
    return 1 if different or n_modules == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
