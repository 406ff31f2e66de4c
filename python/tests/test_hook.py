"""Imports with the hook: which caches are believed and written, and that nothing else changes."""

import os
import stat
import struct
import sys
import unittest
import zipfile

import equality
import rehydrate
from support import PACKAGE, TAG, Project

#: Four threads import the same modules, each in another order.
AT_ONCE = """
import importlib, random, sys, threading
sys.setswitchinterval(1e-6)
failures, ready = [], threading.Barrier(4)

def work(seed, names={names}):
    random.Random(seed).shuffle(names := list(names))
    ready.wait()
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException as error:
            failures.append((name, error))

threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(failures)
for name in {names}:
    module = sys.modules[name]
    print(name, {shown})
"""


def header(path):
    with open(path, "rb") as file:
        return file.read(16)


class Caches(Project):
    """Which caches are believed and written."""

    def shows(self, text, *options, module="module", **how):
        """Imports the module, whose VALUE is to be `text`, and gives the run."""
        run = self.python(*options, "-c", f"import {module}; print({module}.VALUE)", **how)
        self.assertEqual(run.stdout, f"{text}\n", run)
        return run

    def compiled(self, *options, env=None):
        return self.python("-m", "rehydrate", "compile", "-qq", *options, "module.py", env=env)

    def test_an_initializer_is_written_beside_the_pyc_with_its_header(self):
        self.write("module.py", "VALUE = 1")
        cold = self.shows("1")
        self.assertEqual((cold.hook["missed"], cold.hook["written"]), (["module"], 1))
        self.assertEqual(header(self.cache("module.py")), header(self.cache("module.py", "pyc")))
        warm = self.shows("1")
        self.assertEqual((warm.hook["missed"], warm.hook["written"]), ([], 0))
        self.assertGreater(warm.hook["hits"], 0)

    def test_what_is_loaded_is_the_initializer(self):
        self.write("module.py", "VALUE = 'source'")
        self.shows("source")
        self.cache("module.py", "pyc").write_bytes(b"")
        self.shows("source")
        other = self.write("other.py", "VALUE = 'initializer'")
        self.python("-m", "rehydrate", "compile", "-qq", other)
        head = header(self.cache("module.py"))
        self.cache("module.py").write_bytes(head + self.cache("other.py").read_bytes()[16:])
        self.shows("initializer")

    def test_loaders_that_read_in_another_way_are_not_passed_by(self):
        path = self.write("module.py", "VALUE = 'read'")
        script = f"""
            from importlib.machinery import SourceFileLoader
            def reader(value):
                return lambda path: f"VALUE = {{value!r}}".encode() if path.endswith(".py") else b""
            def loaded(prepare=lambda loader: None):
                prepare(loader := SourceFileLoader("module", {str(path)!r}))
                names = {{}}
                exec(loader.get_code("module"), names)
                print(names["VALUE"])
            loaded()
            loaded(lambda loader: setattr(loader, "get_data", reader("instance")))
            original = SourceFileLoader.get_data
            SourceFileLoader.get_data = lambda self, path: reader("class")(path)
            loaded()
            SourceFileLoader.get_data = original
            SourceFileLoader.path_stats = lambda self, path: dict(mtime=7, size=7)
            loaded(lambda loader: setattr(loader, "source_to_code", lambda *_: compile("VALUE = 'stats'", "", "exec")))
            del SourceFileLoader.path_stats
            try:
                loaded()
            except Exception as error:
                print(type(error))
        """
        self.write("script.py", script)
        self.python("-c", "import module")
        plain = self.python("-B", "script.py", hook=False)
        self.assertEqual(plain.stdout.split()[:4], ["read", "instance", "class", "stats"])
        self.assertEqual(self.python("-B", "script.py").shown(), plain.shown())

    def test_what_was_not_written_is_not_counted(self):
        self.write("module.py", "VALUE = 1")
        self.cache("module.py").mkdir(parents=True)
        cold = self.shows("1")
        self.assertEqual((cold.hook["missed"], cold.hook["written"], cold.hook["warning"]), (["module"], 0, None))

    def test_a_source_of_another_time_or_size_is_compiled_again(self):
        path = self.write("module.py", "VALUE = 1")
        os.utime(path, (1_600_000_000, 1_600_000_000))
        self.shows("1")
        for text, when in [("VALUE = 2", 1_600_000_001), ("VALUE = 30", 1_600_000_001)]:
            path.write_text(text)
            os.utime(path, (when, when))
            run = self.shows(text.split()[-1])
            self.assertEqual((run.stderr, run.hook["written"]), ("", 1))
            self.assertEqual(header(self.cache("module.py"))[8:], struct.pack("<II", when, len(text)))
            self.assertEqual(self.shows(text.split()[-1]).hook["missed"], [])

    def test_times_are_rounded_as_importlib_rounds_them(self):
        path = self.write("module.py", "VALUE = 1")
        # The last two are a second more, and the second before 1970, once they are floats.
        for when in [1_600_000_000_500_000_000, 2**32 * 10**9, 1_699_999_999_999_999_999, -500_000_000, -1_500_000_000]:
            with self.subTest(when=when):
                os.utime(path, ns=(when, when))
                self.shows("1")
                self.assertEqual(self.shows("1").hook["missed"], [])

    def test_a_pyc_that_is_current_is_compiled_and_not_the_source(self):
        path = self.write("module.py", "VALUE = 1")
        self.shows("1", hook=False)
        when = path.stat().st_mtime_ns
        path.write_text("VALUE = 2")
        os.utime(path, ns=(when, when))
        self.shows("1")
        self.assertEqual(self.shows("1").hook["missed"], [])

    def test_a_pyc_that_is_missing_is_written_again(self):
        self.write("module.py", "VALUE = 1")
        self.shows("1")
        pyc = self.cache("module.py", "pyc")
        pyc.unlink()
        # Where nothing is written, nothing is missed.
        self.assertEqual(self.shows("1", "-B").hook["missed"], [])
        self.assertFalse(pyc.exists())
        self.assertEqual(self.shows("1").hook["missed"], ["module"])
        self.assertTrue(pyc.exists())
        self.assertEqual(self.shows("1").hook["missed"], [])

    def test_checked_hashes_are_checked(self):
        path = self.write("module.py", "VALUE = 1")
        self.compiled("--invalidation-mode", "checked-hash")
        os.utime(path, (1, 1))
        self.assertEqual(self.shows("1").hook["missed"], [])
        path.write_text("VALUE = 2")
        self.assertEqual(self.shows("1", "--check-hash-based-pycs", "never").hook["missed"], [])
        self.assertEqual(self.shows("2").hook["written"], 1)
        self.assertEqual(header(self.cache("module.py"))[4], 3)
        self.assertEqual(self.shows("2").hook["missed"], [])

    def test_a_pyc_that_was_compiled_anew_is_believed(self):
        path = self.write("module.py", "VALUE = 1")
        for mode, options in [("unchecked-hash", []), ("checked-hash", ["--check-hash-based-pycs", "never"])]:
            with self.subTest(mode=mode):
                path.write_text("VALUE = 1")
                self.compiled("--invalidation-mode", mode)
                self.assertEqual(self.shows("1", *options).hook["missed"], [])
                path.write_text("VALUE = 2")
                self.python("-m", "compileall", "-q", "-f", "--invalidation-mode", mode, "module.py")
                self.assertEqual(self.shows("2", *options).hook["written"], 1)
                self.assertEqual(self.shows("2", *options).hook["missed"], [])
                path.write_text("VALUE = 3")
                self.cache("module.py", "pyc").unlink()
                self.shows("3", "-B", *options)

    def test_what_makes_no_code_object_is_damaged(self):
        self.write("module.py", "VALUE = 1")
        self.shows("1")
        path = self.cache("module.py")
        for value in [(1, 2), "VALUE = 3"]:
            path.write_bytes(header(path) + rehydrate.dumps(value))
            run = self.shows("1")
            self.assertIn("it makes no code object", run.stderr)
            self.assertEqual(self.shows("1").hook["missed"], [])

    @unittest.skipUnless(hasattr(os, "truncate"), "the system cannot do it")
    def test_one_that_is_too_large_for_memory_is_left_alone(self):
        self.write("module.py", "VALUE = 1")
        self.shows("1")
        path = self.cache("module.py")
        try:
            os.truncate(path, 1 << 42)
        except OSError:
            self.skipTest("no file can be as large here")
        self.shows("1", "-B")

    def test_caches_are_named_as_importlib_names_them(self):
        self.write("module.py", "VALUE = 1")
        self.write("module.toy", "VALUE = 2")
        script = """
import sys
from importlib.machinery import FileFinder, SourceFileLoader
finder = FileFinder(".", (SourceFileLoader, [".toy"]))
print(FileFinder(sys.path[0] or ".", (SourceFileLoader, [".toy"])).find_spec("module").cached)
import module
for prefix in ("", "/tmp/x", None):
    sys.pycache_prefix = prefix
    print(FileFinder(module.__file__.rpartition("/")[0], (SourceFileLoader, [".py"])).find_spec("module").cached)
"""
        self.as_without("-B", "-c", script, hits=0)

    def test_unchecked_hashes_are_checked_only_if_all_are(self):
        path = self.write("module.py", "VALUE = 1")
        self.compiled("--invalidation-mode", "unchecked-hash")
        path.write_text("VALUE = 2")
        self.assertEqual(self.shows("1").hook["missed"], [])
        self.assertEqual(self.shows("2", "--check-hash-based-pycs", "always").hook["written"], 1)
        self.assertEqual(header(self.cache("module.py"))[4], 1)
        self.assertEqual(self.shows("2").hook["missed"], [])

    def test_source_date_epoch_asks_for_checked_hashes(self):
        self.write("module.py", "VALUE = 1")
        self.compiled(env={"SOURCE_DATE_EPOCH": "1"})
        self.assertEqual(header(self.cache("module.py"))[4], 3)
        self.assertEqual(self.shows("1").hook["missed"], [])

    def test_nothing_is_written_if_bytecode_is_not(self):
        self.write("module.py", "VALUE = 1")
        for options, env in [(["-B"], {}), ([], {"PYTHONDONTWRITEBYTECODE": "1"})]:
            run = self.shows("1", *options, env=env)
            self.assertEqual(run.hook["written"], 0)
            self.assertFalse(self.cache("module.py").parent.exists())

    def test_a_folder_that_cannot_be_written_is_no_error(self):
        self.write("module.py", "VALUE = 1")
        # Not by its permissions, which mean nothing to root.
        self.write("__pycache__", "is a file")
        for env in [{}, {"PYTHONPYCACHEPREFIX": str(self.root / "module.py")}]:
            run = self.shows("1", env=env)
            self.assertEqual((run.stderr, run.hook["written"]), ("", 0))

    @unittest.skipIf(not hasattr(os, "geteuid") or os.geteuid() == 0, "root may write everything")
    def test_a_read_only_folder_is_no_error(self):
        self.write("module.py", "VALUE = 1")
        self.shows("1", hook=False)
        folder = self.cache("module.py").parent
        folder.chmod(0o555)
        self.addCleanup(folder.chmod, 0o755)
        self.assertEqual(self.shows("1").stderr, "")
        self.assertFalse(self.cache("module.py").exists())

    def test_what_cannot_be_read_or_replaced_is_no_error(self):
        self.write("module.py", "VALUE = 1")
        self.cache("module.py").mkdir(parents=True)
        for _ in range(2):
            self.assertEqual(self.shows("1").stderr, "")
        self.assertEqual(sorted(os.listdir(self.root / "__pycache__")), [f"module.{TAG}.pyc", f"module.{TAG}.pyinit"])

    def test_the_mode_is_that_of_the_source(self):
        for mode in (0o644, 0o640, 0o400, 0o755):
            with self.subTest(mode=oct(mode)):
                path = self.write("module.py", f"VALUE = {mode}")
                path.chmod(mode)
                self.forget()
                self.shows(str(mode))
                modes = [stat.S_IMODE(self.cache("module.py", kind).stat().st_mode) for kind in ("pyinit", "pyc")]
                self.assertEqual(modes[0], modes[1])
                path.chmod(0o644)

    def test_no_temporary_file_is_left(self):
        self.write("module.py", "VALUE = 1")
        self.shows("1")
        self.assertEqual(sorted(os.listdir(self.root / "__pycache__")), [f"module.{TAG}.pyc", f"module.{TAG}.pyinit"])

    @staticmethod
    def damaged(good):
        """An initializer, damaged in each way."""
        yield "empty", b""
        yield "in its header", good[:15]
        yield "behind its header", good[:16]
        yield "truncated", good[:-1]
        yield "longer", good + b"\0"
        yield "another magic number", struct.pack("<H", 3531 if sys.version_info[:2] != (3, 12) else 3571) + good[2:]
        yield "no magic number", b"    " + good[4:]
        yield "unknown flags", good[:4] + b"\4\0\0\0" + good[8:]
        yield "another version of the container", good[:20] + b"\x77" + good[21:]
        yield "no container", good[:16] + b"N" * 100
        yield "another stack", good[:24] + bytes([good[24] ^ 1]) + good[25:]

    def test_a_damaged_initializer_is_warned_of_once_and_made_again(self):
        self.write("module.py", "VALUE = 1")
        self.write("second.py", "import module; VALUE = module.VALUE")
        self.shows("1", module="second")
        caches = [self.cache("module.py"), self.cache("second.py")]
        good = [cache.read_bytes() for cache in caches]
        for (how, one), (_, other) in zip(*map(self.damaged, good)):
            with self.subTest(how):
                caches[0].write_bytes(one)
                caches[1].write_bytes(other)
                run = self.shows("1", module="second")
                self.assertEqual(run.stderr.count("RuntimeWarning"), 1, run)
                self.assertIn(f"second.{TAG}.pyinit is not used: ", run.stderr)
                self.assertEqual(run.hook["written"], 2)
                self.assertEqual([cache.read_bytes() for cache in caches], good)
                self.assertEqual(self.shows("1", module="second").stderr, "")

    def test_a_damaged_initializer_does_no_harm_where_warnings_are_errors_or_nothing_is_written(self):
        self.write("module.py", "VALUE = 1")
        self.shows("1")
        self.cache("module.py").write_bytes(b"damaged")
        for _ in range(2):
            run = self.shows("1", "-B")
            self.assertEqual(run.stderr.count("RuntimeWarning"), 1)
        self.assertEqual(self.cache("module.py").read_bytes(), b"damaged")
        self.assertIn("RuntimeWarning", self.shows("1", "-W", "error").stderr)

    def test_optimization_levels_have_initializers_of_their_own(self):
        self.write("module.py", "'''doc'''\nassert False, 'asserted'\nVALUE = __doc__")
        for option, level, value in [("-O", ".opt-1", "doc"), ("-OO", ".opt-2", "None")]:
            self.shows(value, option)
            self.assertTrue(self.cache("module.py", level=level).exists())
            self.assertEqual(self.shows(value, option).hook["missed"], [])
        self.assertFalse(self.cache("module.py").exists())

    def test_a_prefix_takes_all_caches(self):
        self.write("package/module.py", "VALUE = 1")
        prefix = self.folder / "caches"
        for _ in range(2):
            run = self.shows("1", module="package.module", env={"PYTHONPYCACHEPREFIX": str(prefix)})
        self.assertEqual(run.hook["missed"], [])
        self.assertEqual(list(self.root.rglob("__pycache__")), [])
        below = prefix / self.root.relative_to("/") / "package"
        self.assertTrue((below / f"module.{TAG}.pyinit").exists())

    def test_a_prefix_and_a_tag_can_change_at_any_time(self):
        self.write("first.py", "VALUE = 1")
        self.write("second.py", "VALUE = 2")
        script = f"""
import sys, first
sys.pycache_prefix = {str(self.folder / "caches")!r}
import second
print(second.__spec__.cached)
for tag in (None, "other"):
    sys.implementation.cache_tag = tag
    sys.modules.pop("first")
    try:
        import first
        print(first.__spec__.cached, first.VALUE)
    except NotImplementedError as error:
        print(error)
"""
        self.as_without("-c", script, hits=1)
        self.assertTrue((self.folder / "caches" / self.root.relative_to("/") / f"second.{TAG}.pyinit").exists())

    def test_a_moved_project_has_the_new_filenames(self):
        self.write("module.py", "import sys\ndef f(): return sys._getframe().f_code.co_filename\nVALUE = f()")
        self.shows(str(self.root / "module.py"))
        moved = self.folder / "moved"
        self.root.rename(moved)
        run = self.shows(str(moved / "module.py"), cwd=moved)
        self.assertEqual(run.hook["missed"], [])
        moved.rename(self.root)

    def test_the_hook_counts_what_it_does(self):
        self.write("module.py", "VALUE = 1")
        status = self.shows("1").hook
        self.assertTrue(status["installed"])
        self.assertEqual(status["failures"], 0)


class Behaviour(Project):
    """That nothing else changes."""

    def test_tracebacks(self):
        self.write("bad.py", "def f():\n    return 1 / 0\n\n\nf()\n")
        self.write("outer.py", "import bad\n")
        self.as_without("-c", "import outer", check=False, hits=2)

    def test_tracebacks_of_syntax_errors(self):
        self.write("bad.py", "def f(:\n")
        self.write("outer.py", "import bad\n")
        run = self.as_without("-c", "import outer", check=False)
        self.assertIn("SyntaxError", run.stderr)
        self.assertNotIn("importlib", run.stderr)

    def test_tracebacks_of_missing_modules(self):
        self.write("outer.py", "import there_is_no_such_module\n")
        self.write("null.py", "import importlib\nimportlib.import_module('a\\0b')\n")
        self.as_without("-c", "import outer", check=False)
        self.as_without("-c", "import null", check=False)

    def test_sources_and_lines(self):
        self.write("module.py", "# comment\n\ndef f(a):\n    # inner\n    return a\n\n\nclass C:\n    def m(self): pass\n")
        script = """
import inspect, linecache, module
print(inspect.getsource(module.f), inspect.getsource(module.C), inspect.getsource(module))
print(inspect.getsourcefile(module.f), inspect.getfile(module), inspect.getcomments(module.f))
print(module.__loader__.get_source("module"), module.__loader__.get_filename("module"))
print(linecache.getline(module.__file__, 3))
"""
        self.as_without("-c", script)

    def test_attributes_of_modules_and_specs(self):
        self.write("package/__init__.py", "from . import module")
        self.write("package/module.py")
        self.write("single.py")
        script = """
import importlib.machinery, importlib.util, sys, package, single
for module in (package, package.module, single):
    spec = module.__spec__
    print(sorted(vars(module)), module.__name__, module.__file__, module.__package__, getattr(module, "__path__", None))
    print(getattr(module, "__cached__", None), repr(module), module.__doc__)
    print(spec.name, spec.origin, spec.cached, spec.parent, spec.has_location, spec.submodule_search_locations)
    print(spec.loader_state, type(spec).__name__, sorted(vars(spec)), spec.loader.name, spec.loader.path)
    print(spec.loader.is_package(spec.name), spec.loader is module.__loader__, sorted(vars(spec.loader)))
    print(type(spec.loader), type(spec.loader) is importlib.machinery.SourceFileLoader, spec == importlib.util.find_spec(spec.name))
finder = sys.path_importer_cache[sys.path[0] or __import__("os").getcwd()]
print(type(finder), sys.path_hooks[-1].__qualname__, finder, finder.path)
print(importlib.util.find_spec("nothing"))
"""
        self.as_without("-c", script, hits=3)

    def test_a_code_object_of_another_name_is_refused(self):
        self.write("module.py")
        script = """
import module
for name in ("other", None, "module", 7):
    try:
        print(type(module.__loader__.get_code(name)))
    except Exception as error:
        print(type(error), error)
"""
        self.as_without("-c", script)

    def test_namespace_packages(self):
        self.write("one/space/first.py", "VALUE = 1")
        self.write("two/space/second.py", "VALUE = 2")
        script = """
import sys
sys.path[:0] = ["one", "two"]
import space.first, space.second
print(space.__name__, list(space.__path__), space.__file__ if hasattr(space, "__file__") else "no file", space.__spec__.origin)
print(space.first, space.second, space.first.VALUE + space.second.VALUE)
"""
        self.as_without("-c", script, hits=2)

    def test_folders_that_are_no_packages(self):
        self.write("name/readme.txt")
        self.write("name.py", "VALUE = 'module'")
        self.write("both/__init__.py", "VALUE = 'package'")
        self.write("both.py", "VALUE = 'module'")
        (self.root / "odd.py").mkdir()
        self.write("plain", "a file without a suffix")
        script = """
import both, name, odd
print(both.VALUE, name.VALUE, odd)
try:
    import plain
except ImportError as error:
    print(error)
"""
        self.as_without("-c", script, check=False, hits=2)

    def test_extension_modules_and_legacy_bytecode_come_first_as_ever(self):
        self.write("module.py", "VALUE = 'source'")
        self.write("bare.py", "VALUE = 'bytecode'")
        self.python("-c", "import py_compile; py_compile.compile('bare.py', 'bare.pyc')")
        (self.root / "bare.py").unlink()
        suffix = self.python("-c", "import _imp; print(_imp.extension_suffixes()[0])").stdout.strip()
        self.write(f"extension{suffix}", "not really one")
        self.write("extension.py")
        self.write(f"part/__init__{suffix}", "nor is this")
        script = """
import bare, module
from importlib.util import find_spec
for name in ["bare", "extension", "module", "part"]:
    spec = find_spec(name)
    print(spec.name, spec.origin, spec.cached, spec.has_location, spec.parent, spec.submodule_search_locations)
    print(type(spec.loader), vars(spec.loader), sorted(vars(spec)))
print(bare.VALUE, bare.__file__, bare.__loader__.__class__, module.VALUE)
try:
    import extension
except ImportError as error:
    print(error)
"""
        self.as_without("-c", script)

    def test_zip_imports(self):
        with zipfile.ZipFile(self.root / "archive.zip", "w") as archive:
            archive.writestr("zipped.py", "VALUE = 1\ndef f(): raise ValueError(VALUE)")
            archive.writestr("package/__init__.py", "")
            archive.writestr("package/module.py", "VALUE = 2")
        self.write("module.py", "VALUE = 3")
        script = """
import sys
sys.path.insert(0, "archive.zip")
import zipped, package.module, module
print(zipped, zipped.__loader__, package.module.VALUE, module.VALUE)
zipped.f()
"""
        self.as_without("-c", script, check=False)

    def test_modules_as_programs(self):
        self.write("package/__init__.py")
        self.write("package/__main__.py", "import sys; print(__name__, __spec__.name, sys.argv[1:], __file__)")
        self.write("package/module.py", "print(__name__, __package__, __spec__.cached)\ndef f(): 1 / 0\nf()")
        self.write("script.py", "import package.other\nprint(__name__, __file__)")
        self.write("package/other.py", "print(__name__)")
        script = """
import runpy
print(sorted(runpy.run_module("package.other")), runpy.run_path("script.py")["__name__"])
print(runpy.run_path("package")["__name__"])
"""
        self.as_without("-m", "package", "a", hits=2)
        self.as_without("-m", "package.module", check=False, hits=2)
        self.as_without("script.py", hits=2)
        self.as_without("-c", script, hits=2)

    def test_reload(self):
        path = self.root / "module.py"
        script = f"""
import importlib, os, module
print(module.VALUE)
with open({str(path)!r}, "w") as file: file.write("VALUE = 22\\n")
module = importlib.reload(module)
print(module.VALUE)
os.utime({str(path)!r}, (1, 1))
print(importlib.reload(module).VALUE, importlib.reload(module).VALUE)
"""

        def before():
            path.write_text("VALUE = 1\n")
            os.utime(path, (1_600_000_000, 1_600_000_000))

        self.as_without("-c", script, before=before)

    def test_resources(self):
        self.write("package/__init__.py")
        self.write("package/data/text.txt", "text")
        self.write("package/inner/__init__.py")
        self.write("package/inner/more.txt", "more")
        script = """
import importlib.resources, pkgutil, package.inner
files = importlib.resources.files("package")
print(files, (files / "data" / "text.txt").read_text(), sorted(path.name for path in files.iterdir() if path.name[0] != "_"))
print(importlib.resources.files(package.inner).joinpath("more.txt").read_bytes())
print(pkgutil.get_data("package", "data/text.txt"), package.__loader__.get_resource_reader("package").is_resource("nothing"))
"""
        self.as_without("-c", script, hits=2)

    def test_packages_are_walked(self):
        self.write("package/__init__.py")
        self.write("package/inner/__init__.py")
        self.write("package/inner/module.py")
        self.write("package/module.py")
        script = """
import pkgutil, sys
for found in sorted(pkgutil.walk_packages(["."]), key=lambda found: found.name):
    print(found)
print([found.name for found in pkgutil.iter_modules(__import__("package").__path__, "package.")])
print(sys.modules["package"].__loader__.get_code("package").co_filename)
"""
        self.as_without("-c", script, hits=2)

    def test_processes_that_are_spawned(self):
        self.write("work.py", "import helper\ndef double(x): return helper.add(x, x)\n")
        self.write("helper.py", "def add(x, y): return x + y\n")
        self.write(
            "program.py",
            """
            import multiprocessing, work
            if __name__ == "__main__":
                with multiprocessing.get_context("spawn").Pool(2) as pool:
                    print(pool.map(work.double, range(5)))
            """,
        )
        self.as_without("program.py", hits=2)

    def test_names_that_are_not_ascii(self):
        self.write("größe/__init__.py")
        self.write("größe/名前.py", "VALUE = __file__")
        self.as_without("-c", "import größe.名前 as m; print(ascii(m.VALUE), ascii(m.__spec__.cached))", hits=2)

    @unittest.skipIf(sys.platform in ("darwin", "win32"), "file names are text here")
    def test_folders_whose_names_are_no_text(self):
        folder = os.fsencode(self.root) + b"/\xff"
        os.mkdir(folder)
        with open(folder + b"/module.py", "w") as file:
            file.write("print(ascii(__file__), ascii(__spec__.cached))")
        self.as_without("-c", "import sys, os; sys.path.insert(0, os.fsdecode(b'\\xff')); import module", hits=0)

    def test_encodings_of_file_names_other_than_utf8(self):
        self.write("größe.py", "VALUE = 1")
        env = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
        self.as_without("-c", "import sys; print(sys.getfilesystemencoding())", env=env, hits=0)

    def test_relative_entries_of_the_path(self):
        self.write("below/module.py", "VALUE = 1")
        script = "import sys; sys.path.insert(0, 'below'); import module; print(module.__file__, module.__spec__.cached)"
        self.as_without("-c", script)
        script = "import os; os.chdir('below'); import module; print(module.__file__, module.__spec__.cached)"
        self.as_without("-c", script)

    def test_links(self):
        self.write("real/module.py", "VALUE = __file__")
        (self.root / "linked").symlink_to("real")
        (self.root / "alias.py").symlink_to("real/module.py")
        self.as_without("-c", "import alias, linked.module, real.module; print(alias.VALUE, linked.module.VALUE)", hits=3)

    def test_circular_imports(self):
        self.write("a.py", "import b\nVALUE = 1\n")
        self.write("b.py", "import a\nprint(a)\nfrom a import VALUE\n")
        self.as_without("-c", "import a", check=False, hits=2)

    def test_modules_that_appear_and_vanish(self):
        script = """
import importlib, os
try:
    import late
except ImportError as error:
    print(error)
with open("late.py", "w") as file: file.write("VALUE = 1")
importlib.invalidate_caches()
import late
print(late.VALUE)
os.remove("late.py")
importlib.invalidate_caches()
try:
    importlib.reload(late)
except ImportError as error:
    print(error)
spec = late.__spec__
try:
    spec.loader.exec_module(late)
except OSError as error:
    print(error)
"""
        self.as_without("-c", script, hits=0, check=False)

    def test_lazy_loaders_and_other_finders_of_files(self):
        self.write("module.py", "print('executed')\nVALUE = 1")
        script = """
import importlib.machinery, importlib.util, sys
spec = importlib.util.find_spec("module")
spec.loader = importlib.util.LazyLoader(spec.loader)
module = importlib.util.module_from_spec(spec)
sys.modules["module"] = module
spec.loader.exec_module(module)
print("not yet")
print(module.VALUE)
details = (importlib.machinery.SourceFileLoader, [".py"])
finder = importlib.machinery.FileFinder.path_hook(details)(".")
print(finder.find_spec("module").loader.__class__)
print(importlib.machinery.PathFinder.find_spec("module").origin)
"""
        self.as_without("-c", script)

    def test_what_only_starts_with_an_interpreter(self):
        self.write("module.py", "VALUE = 1")
        run = self.python("-v", "-c", "import module")
        self.assertRegex(run.stderr, f"created '.*module.{TAG}.pyinit'")
        self.assertRegex(self.python("-v", "-c", "import module").stderr, f"{TAG}.pyinit matches .*module.py")
        self.assertIn("trying", self.python("-vv", "-c", "import module").stderr)
        self.assertIn("module", self.python("-X", "importtime", "-c", "import module").stderr)

    def test_debuggers_and_profilers_see_what_they_see_without(self):
        self.write("module.py", "def f():\n    return 1\n\nVALUE = f()\n")
        script = """
import sys
seen = []
def note(frame, event, arg):
    if "importlib" not in frame.f_code.co_filename:
        seen.append((event, frame.f_code.co_filename, frame.f_code.co_name, frame.f_lineno))
    return note
sys.settrace(note)
import module
sys.settrace(None)
sys.setprofile(lambda frame, event, arg: event.startswith("c_") or note(frame, event, arg))
del sys.modules["module"]
import module
sys.setprofile(None)
print(seen)
"""
        self.as_without("-c", script)

    def test_what_is_opened_is_audited(self):
        self.write("module.py", "VALUE = 1")
        script = """
import sys
sys.addaudithook(lambda event, args: event == "open" and print(args))
import module
"""
        self.python("-c", script)
        opened = self.python("-c", script).stdout
        # As importlib opens a .pyc.
        self.assertIn(f"('{self.cache('module.py')}', 'r', {os.O_RDONLY | os.O_CLOEXEC})", opened)
        self.assertNotIn(".pyc'", opened)

    def test_an_audit_hook_may_refuse_caches(self):
        self.write("module.py", "print('executed')")
        script = """
import sys
def refuse(event, arguments):
    if event == "open" and str(arguments[0]).endswith((".pyc", ".pyinit")):
        raise PermissionError(arguments[0])
sys.addaudithook(refuse)
import module
"""
        self.as_without("-c", script, hits=0)

    def test_methods_that_were_taken_can_be_put_back_and_inherited(self):
        for name in ("first", "second", "third", "fourth"):
            self.write(f"{name}.py", f"NAME = {name!r}")
        script = """
import importlib.util
from importlib.machinery import FileFinder, SourceFileLoader

def kept(of, name):
    method = getattr(of, name)
    setattr(of, name, lambda *arguments: method(*arguments))
    return lambda: setattr(of, name, method)

restore = [kept(SourceFileLoader, "get_code"), kept(FileFinder, "find_spec")]
import first
for put_back in restore:
    put_back()
import second

class Loader(SourceFileLoader):
    get_code = SourceFileLoader.get_code

spec = importlib.util.spec_from_file_location("third", "third.py", loader=Loader("third", "third.py"))
third = importlib.util.module_from_spec(spec)
spec.loader.exec_module(third)
fourth = SourceFileLoader.get_code(Loader("fourth", "fourth.py"), "fourth")
print(first.NAME, second.NAME, third.NAME, fourth.co_consts[0])
print(SourceFileLoader.get_code.__name__, FileFinder.find_spec.__qualname__)
"""
        self.as_without("-c", script)

    def test_the_package_may_be_imported_anew(self):
        for name in ("first", "second"):
            self.write(f"{name}.py", f"NAME = {name!r}")
        script = """
import sys
from importlib.machinery import FileFinder, SourceFileLoader

def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == "rehydrate"]:
        del sys.modules[name]

before = SourceFileLoader.get_code, FileFinder.find_spec
import rehydrate
rehydrate.install()
forget()
import first
import rehydrate
rehydrate.install()
print(rehydrate.status()["hook"]["installed"])
rehydrate.uninstall()
import second
print(first.NAME, second.NAME, (SourceFileLoader.get_code, FileFinder.find_spec) == before)
"""
        self.assertEqual(self.python("-c", script, hook=False).stdout, "True\nfirst second True\n")

    def test_what_a_signal_handler_raises_while_an_initializer_is_written_is_raised(self):
        self.write("module.py", "VALUE = 1")
        script = """
from rehydrate import _hook

def write(*_):
    raise TimeoutError_("in time")

class TimeoutError_(Exception):
    pass

_hook._write = write
try:
    import module
except TimeoutError_ as error:
    print(error)
"""
        self.assertEqual(self.python("-c", script).stdout, "in time\n")

    def test_a_finalizer_may_load_while_the_interpreter_is_probed(self):
        for name in ("first", "second"):
            self.write(f"{name}.py", f"NAME = {name!r}")
        # Where the collector runs inside of allocations, it runs in the first load.
        script = """
import gc
import rehydrate

class Importing:
    def __init__(self):
        self.me = self
    def __del__(self):
        import second

rehydrate.install()
gc.set_threshold(1)
garbage = [Importing() for _ in range(3)]
del garbage
import first
gc.collect()
import second
print(first.NAME, second.NAME)
"""
        for _ in range(2):
            self.assertEqual(self.python("-c", script, hook=False).stdout, "first second\n")

    def test_a_finalizer_may_import_while_a_module_is_loaded(self):
        self.write("first.py", "\n".join(f"def f{n}(a, b=({n}, 'x')): return [a, b, {n}.5]" for n in range(3000)))
        self.write("second.py", "VALUE = 2")
        script = """
import gc, sys
class Cycle:
    def __init__(self): self.me = self
    def __del__(self):
        import second
        sys.modules.pop("second", None)
gc.set_threshold(1)
for _ in range(10):
    Cycle()
    import first
    sys.modules.pop("first")
    print(first.f7(1), len(first.__dict__))
"""
        self.as_without("-c", script)

    def test_four_threads_import_at_once(self):
        for n in range(40):
            self.write(f"package/m{n}.py", f"from package import m{(n + 1) % 40}\nVALUE = {n}\ndef f(): return VALUE")
        self.write("package/__init__.py")
        names = [f"package.m{n}" for n in range(40)]
        self.as_without("-c", AT_ONCE.format(names=names, shown="module.f()"), hits=41)

    def test_four_threads_import_the_standard_library_at_once(self):
        # Modules of packages that import each other in a circle are not to be had by several threads at once, without the hook
        # either; turtle needs what is not everywhere.
        names = [name for name in equality.SAMPLE if "." not in name and name != "turtle" and equality.source_of(name)]
        self.assertGreaterEqual(len(names), 45)
        script = "import asyncio" + AT_ONCE.format(names=names, shown="sorted(vars(module))")
        # The caches are the test's own, so those of any module may be written.
        caches = {"PYTHONPYCACHEPREFIX": str(self.root / "__pycache__"), "REHYDRATE_PROJECT": os.sep}
        self.as_without("-c", script, hits=100, env=caches)


class Installing(Project):
    """Where the hook comes from, and that it goes without a trace."""

    def test_it_is_installed_once_and_removed_without_a_trace(self):
        self.write("first.py", "VALUE = 1")
        self.write("second.py", "VALUE = 2")
        script = """
import sys
from importlib.machinery import FileFinder, SourceFileLoader
def state():
    return dict(vars(FileFinder)), dict(vars(SourceFileLoader)), list(sys.path_hooks), list(sys.meta_path)
before, hooks = state(), list(sys.path_hooks)
import rehydrate
finders = dict(sys.path_importer_cache)
rehydrate.install(); rehydrate.install()
assert state() != before and (list(sys.path_hooks), sys.path_importer_cache) == (hooks, finders)
import first
assert rehydrate.status()["hook"]["installed"]
rehydrate.uninstall(); rehydrate.uninstall()
assert state() == before
import second
counted = rehydrate.status()["hook"]
assert not counted["installed"] and (counted["hits"], counted["misses"]) == (0, 1), counted
assert type(first.__loader__) is type(second.__loader__) is SourceFileLoader
rehydrate.install()
assert rehydrate.status()["hook"]["installed"]
"""
        self.python("-c", script, hook=False)
        self.assertTrue(self.cache("first.py").exists())
        self.assertFalse(self.cache("second.py").exists())

    def test_derived_loaders_and_finders_go_their_own_way(self):
        self.write("module.py", "VALUE = 'source'")
        script = """
import importlib.machinery, importlib.util, sys
from importlib.machinery import FileFinder, SourceFileLoader
class Loader(SourceFileLoader):
    def get_data(self, path):
        return b"VALUE = 'derived'" if path.endswith(".py") else super().get_data(path)
    def path_stats(self, path):
        return {"mtime": 1, "size": 17}
class Finder(FileFinder):
    def _get_spec(self, loader_class, fullname, path, smsl, target):
        return importlib.util.spec_from_file_location(fullname, path, loader=Loader(fullname, path))
import module
print(module.VALUE)
del sys.modules["module"]
sys.path_hooks.insert(0, Finder.path_hook((SourceFileLoader, [".py"])))
sys.path_importer_cache.clear()
import module
print(module.VALUE, type(module.__loader__).__name__)
"""
        for hook in (False, True, True):
            run = self.python("-B", "-c", script, hook=hook)
            self.assertEqual(run.stdout, "source\nderived Loader\n")

    def test_methods_that_somebody_else_replaced_come_back(self):
        script = """
from importlib.machinery import FileFinder, SourceFileLoader
theirs = []
def get_code(self, fullname, base=SourceFileLoader.get_code):
    theirs.append(fullname)
    return base(self, fullname)
SourceFileLoader.get_code = get_code
import rehydrate
rehydrate.install()
import module
rehydrate.uninstall()
assert "module" in theirs, theirs
assert SourceFileLoader.get_code is get_code
rehydrate.install()
SourceFileLoader.get_code = get_code
rehydrate.uninstall()
assert SourceFileLoader.get_code is get_code
"""
        self.write("module.py")
        self.python("-c", script, hook=False)

    def test_loaders_that_are_made_by_hand(self):
        path = self.write("script", "VALUE = __file__")
        script = f"""
import importlib.util
from importlib.machinery import SourceFileLoader
for path in ({str(path)!r}, "script"):
    loader = SourceFileLoader("name", path)
    spec = importlib.util.spec_from_file_location("name", path, loader=loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    print(module.VALUE, spec.cached, loader.get_code("name").co_filename)
"""
        self.as_without("-c", script)

    def test_a_pth_file_installs_it(self):
        site = self.folder / "site"
        self.write("rehydrate.pth", f"{PACKAGE}\nimport rehydrate; rehydrate.install()\n", folder=site)
        self.write("module.py", "VALUE = 1")
        script = f"""
import site
site.addsitedir({str(site)!r})
import module, rehydrate
print(rehydrate.status()["hook"]["installed"], type(module.__loader__).__name__)
"""
        run = self.python("-c", script, hook=False)
        self.assertEqual((run.stdout, run.stderr), ("True SourceFileLoader\n", ""))
        self.assertTrue(self.cache("module.py").exists())

    def test_a_script_installs_it_for_what_it_imports_later(self):
        self.write("before.py", "VALUE = 1")
        self.write("after.py", "VALUE = 1")
        script = "import before, rehydrate; rehydrate.install(); import after; print(*map(type, map(vars, [before])), after)"
        self.python("-c", script, hook=False)
        self.assertFalse(self.cache("before.py").exists())
        self.assertTrue(self.cache("after.py").exists())

    def test_a_subinterpreter_goes_without(self):
        self.write("module.py", "VALUE = 1")
        script = """
try:
    import _interpreters as interpreters
except ImportError:
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        raise SystemExit("no subinterpreters")
inner = '''
import sys, rehydrate
sys.path.insert(0, "")
rehydrate.install()
rehydrate.uninstall()
import module
from importlib.machinery import SourceFileLoader
assert "get_code" not in vars(SourceFileLoader) and not rehydrate.status()["hook"]["installed"]
try:
    rehydrate.loads(b"")
except ImportError as error:
    assert "subinterpreter" in str(error), error
else:
    raise AssertionError("it can be had")
'''
def of_any_kind():
    yield interpreters.create()
    try:
        yield interpreters.create("legacy")
    except TypeError:
        yield interpreters.create(isolated=False)

for interpreter in of_any_kind():
    failure = (getattr(interpreters, "exec", None) or interpreters.run_string)(interpreter, inner)
    print("failed" if failure else "done", failure or "")
    interpreters.destroy(interpreter)
"""
        run = self.python("-c", script, check=False)
        if "no subinterpreters" in run.stderr:
            self.skipTest("this interpreter has no module for subinterpreters")
        self.assertEqual((run.stdout, run.stderr), ("done \ndone \n", ""))

    def test_an_interpreter_with_the_hook_starts_and_ends_quietly(self):
        for options in [(), ("-X", "dev"), ("-W", "error"), ("-O",), ("-E",), ("-s",), ("-bb",)]:
            with self.subTest(options=options):
                run = self.python(*options, "-c", "import json, email.message, decimal", check=False)
                self.assertEqual((run.status, run.stdout, run.stderr), (0, "", ""))

    def test_the_hook_needs_few_modules(self):
        script = """
import sys
before = set(sys.modules)
import rehydrate
rehydrate.install()
print(sorted(set(sys.modules) - before))
"""
        wanted = "['rehydrate', 'rehydrate._hook', 'rehydrate._native']\n"
        self.assertEqual(self.python("-c", script, hook=False).stdout, wanted)


if __name__ == "__main__":
    unittest.main()
