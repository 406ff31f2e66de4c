"""Imports from bundles: they show what imports show without, and what is wrong with a bundle does no harm."""

import importlib.util
import marshal
import os
import random
import shutil
import struct
import sys
import unittest
import warnings
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from pathlib import Path

import equality
from rehydrate import _bundle, _native
from support import Project
from test_memory import grown

#: A package with a module of each kind of use; its modules share names and constants.
PACKAGE = {
    "app/__init__.py": '"""An application."""\nfrom .tools import double\nNAMES = ("alpha", "beta", 3.5)\n',
    "app/tools.py": 'NAMES = ("alpha", "beta", 3.5)\n\ndef double(value, other=None):\n    """Doubles."""\n    return value * 2\n',
    "app/parts/__init__.py": "",
    "app/parts/deep.py": (
        "from ..tools import double\n\nclass Deep:\n    def fail(self, value, other=None):\n        raise KeyError(value)\n"
    ),
    "app/parts/text.txt": "a resource",
    "single.py": "def double(value, other=None):\n    return [value, other]\n",
    "space/inner.py": "NAMES = ('alpha', 'beta', 3.5)\n",
}

#: What is seen of a package that is imported, but for its loaders.
SHOWS = """
import importlib.resources, inspect, linecache, pkgutil, runpy, sys, traceback
import app, app.parts.deep, single, space.inner
for name in ["app", "app.tools", "app.parts", "app.parts.deep", "single", "space.inner"]:
    module = sys.modules[name]
    spec = module.__spec__
    print(name, module.__file__, getattr(module, "__cached__", None), getattr(module, "__path__", None), module.__package__, module.__doc__)
    print(spec.origin, spec.cached, spec.has_location, spec.parent, spec.submodule_search_locations)
    print(isinstance(module.__loader__, importlib.machinery.SourceFileLoader), module.__loader__.path)
    print(inspect.getsource(module) if module.__file__.endswith("tools.py") else "")
print(inspect.getsource(app.double), inspect.getsourcefile(app.double), app.double.__code__.co_filename)
print(app.NAMES, app.tools.NAMES, space.inner.NAMES, single.double(2), app.double(4))
print(importlib.resources.files("app.parts").joinpath("text.txt").read_text())
print(pkgutil.get_data("app.parts", "text.txt"), [module.name for module in pkgutil.walk_packages(app.__path__, "app.")])
print(importlib.util.find_spec("app.missing"), importlib.util.find_spec("missing"))
try:
    app.parts.deep.Deep().fail("key")
except KeyError:
    print(traceback.format_exc())
again = importlib.reload(app.tools)
print(again is app.tools, again.double.__code__.co_filename, runpy.run_module("single")["__name__"])
"""


class Bundles(Project):
    def setUp(self):
        super().setUp()
        for name, text in PACKAGE.items():
            self.write(name, text)
        self.bundle = self.root / "all.pybundle"

    def made(self, *paths, **how):
        """Makes the bundle of paths, or of the project."""
        paths = [str(path) for path in paths] or [str(self.root)]
        self.assertTrue(_bundle.bundle(paths, str(self.bundle), quiet=1, **how))

    def run_with(self, code, *options, check=True):
        """Runs code with the bundle, and gives what it shows, with the code objects that were taken from it at the end."""
        code = (
            f"import rehydrate; rehydrate.install(bundles=[{str(self.bundle)!r}])\n{code}\n"
            "print('hits', [bundle['hits'] for bundle in rehydrate.status()['hook']['bundles']])"
        )
        return self.python("-B", *options, "-c", code, hook=False, check=check)

    def hits(self, run):
        return eval(run.stdout.splitlines()[-1].removeprefix("hits "))

    def test_packages_show_what_they_show_without(self):
        plain = self.python("-B", "-c", "\n" + SHOWS, hook=False)
        for unchecked in [False, True]:
            self.made(unchecked=unchecked)
            run = self.run_with(SHOWS)
            self.assertEqual(run.stdout.splitlines()[:-1], plain.stdout.splitlines())
            self.assertEqual(run.stderr, plain.stderr)
            # tools a second time, and single for runpy.
            self.assertEqual(self.hits(run), [8])

    def test_code_objects_equal_those_of_the_compiler(self):
        self.made()
        bundle = _native.Bundle(self.bundle)
        self.assertEqual(len(bundle.modules()), 6)
        try:
            for path in ["direct", "constructor", "marshal"]:
                try:
                    _native._force_path(path)
                except ValueError:
                    continue
                for name in bundle.modules():
                    loader = bundle.find_spec(name, self.around(name)).loader
                    with open(loader.path, "rb") as file:
                        compiled = compile(file.read(), loader.path, "exec", dont_inherit=True)
                    # Sets are filled in the order of the dump, which may give them another one.
                    wanted = marshal.loads(marshal.dumps(compiled))
                    self.assertIsNone(equality.difference(loader.get_code(name), wanted), (path, name))
        finally:
            _native._force_path(None)
        self.assertGreaterEqual(bundle.hits, 6)

    def around(self, name):
        """What `__path__` the package has in which a module is."""
        *parents, _ = name.split(".")
        return [str(self.root.joinpath(*parents))] if parents else None

    def test_names_and_constants_of_two_modules_are_one_object(self):
        self.made()
        run = self.run_with("import app, space.inner; print(app.NAMES is app.tools.NAMES is space.inner.NAMES)")
        self.assertEqual(run.stdout.splitlines()[0], "True")

    def test_a_source_that_changed_is_imported_from_itself(self):
        self.made()
        self.write("single.py", "def double(value):\n    return 'changed'\n")
        run = self.run_with("import single, app; print(single.double(1), type(single.__loader__).__name__)")
        self.assertEqual(run.stdout.splitlines()[0], "changed SourceFileLoader")
        self.assertEqual((self.hits(run), run.stderr), ([2], ""))
        (self.root / "single.py").unlink()
        run = self.run_with("import app\ntry:\n    import single\nexcept ImportError as error:\n    print(error)")
        self.assertEqual(run.stdout.splitlines()[0], "No module named 'single'")

    def test_an_unchecked_bundle_needs_no_sources(self):
        self.made(unchecked=True)
        (self.root / "single.py").unlink()
        run = self.run_with("import single; print(single.double(1))")
        self.assertEqual((run.stdout.splitlines()[0], self.hits(run)), ("[1, None]", [1]))

    def test_a_namespace_package_needs_its_folder_even_if_unchecked(self):
        self.made(unchecked=True)
        (self.root / "space" / "inner.py").unlink()
        run = self.run_with("import space.inner; print(space.inner.NAMES)")
        self.assertEqual((run.stdout.splitlines()[0], self.hits(run)), ("('alpha', 'beta', 3.5)", [1]))
        run = self.run_with("import sys; del sys.path[0]\ntry:\n    import space.inner\nexcept ImportError as error:\n    print(error)")
        self.assertEqual((run.stdout.splitlines()[0], self.hits(run)), ("No module named 'space'", [0]))

    def test_sources_are_beside_the_link_to_a_bundle(self):
        self.made()
        link = self.folder / "all.pybundle"
        link.symlink_to(self.bundle)
        self.bundle = link
        self.assertEqual(self.hits(self.run_with("import app")), [0])
        shutil.copytree(self.root / "app", self.folder / "app")
        self.assertEqual(self.hits(self.run_with("import app")), [2])

    def test_hashes_are_compared(self):
        for mode in ["checked-hash", "unchecked-hash"]:
            self.forget()
            self.write("single.py", "VALUE = 1\n")
            self.python("-m", "compileall", "-q", "--invalidation-mode", mode, "single.py", hook=False)
            self.made(self.root / "single.py")
            self.write("single.py", "VALUE = 2\n")
            run = self.run_with("import single; print(single.VALUE)")
            self.assertEqual(run.stdout.splitlines()[0], "2" if mode == "checked-hash" else "1")

    def test_bundle_and_sources_can_be_moved_together(self):
        self.made()
        shutil.move(self.root, self.folder / "moved")
        self.root, self.bundle = self.folder / "moved", self.folder / "moved" / "all.pybundle"
        run = self.run_with("import app; print(app.__file__)")
        self.assertEqual(run.stdout.splitlines()[0], str(self.root / "app" / "__init__.py"))
        self.assertEqual(self.hits(run), [2])

    def test_a_path_may_stand_alone(self):
        self.made()
        for spelled in ("'all.pybundle'", "pathlib.Path('all.pybundle')"):
            script = f"import pathlib, rehydrate; rehydrate.install(bundles={spelled}); import app; print(app.__spec__.loader)"
            run = self.python("-B", "-c", script, hook=False)
            self.assertRegex((run.stdout + run.stderr).strip(), "^<rehydrate._hook.BundleLoader object at .*>$")

    def test_dots_behind_a_link_are_those_of_its_path(self):
        # The system would look beside what the link leads to.
        (self.folder / "real" / "deep").mkdir(parents=True)
        (self.root / "link").symlink_to(self.folder / "real" / "deep")
        self.made(self.root / "single.py")
        shutil.move(self.bundle, self.folder / "real" / "all.pybundle")
        opened = "import rehydrate; from rehydrate import _native; print(_native.Bundle('link/../all.pybundle').path)"
        run = self.python("-B", "-c", opened, hook=False, check=False)
        self.assertIn("FileNotFoundError: [Errno 2] No such file or directory: 'link/../all.pybundle'", run.stderr)
        shutil.move(self.folder / "real" / "all.pybundle", self.bundle)
        self.assertEqual(self.python("-B", "-c", opened, hook=False).stdout.strip(), str(self.bundle))

    def test_loaders_that_read_in_another_way_are_not_passed_by(self):
        self.made(self.root / "single.py")
        run = self.run_with(
            "import sys; from importlib.util import find_spec; loader = find_spec('single').loader\n"
            "loader.get_data = lambda path: b'VALUE = 7' if path.endswith('.py') else b''\n"
            "names = {}; exec(loader.get_code('single'), names); print(names['VALUE'])"
        )
        self.assertEqual((run.stdout.splitlines()[0], self.hits(run)), ("7", [0]))

    def test_what_cannot_be_compiled_is_named_and_the_rest_is_bundled(self):
        self.write("bad.py", "def f(:")
        self.write("deep.py", "x = " + "-" * 200_000 + "1")
        run = self.python("-m", "rehydrate", "bundle", ".", "-o", self.bundle, hook=False, check=False)
        self.assertEqual((run.status, run.stdout, run.stderr.count("*** Error compiling")), (1, "", 2), run)
        self.assertRegex(run.stderr, r"deep\.py'\.\.\.\n(Memory|Recursion)Error")
        self.assertIn("single", _native.Bundle(self.bundle).modules())
        self.bundle.unlink()
        run = self.python("-m", "rehydrate", "bundle", "bad.py", "-o", self.bundle, hook=False, check=False)
        self.assertEqual((run.status, self.bundle.exists()), (1, False), run)
        self.write("empty/readme.txt")
        run = self.python("-m", "rehydrate", "bundle", "empty", "-o", self.bundle, hook=False, check=False)
        self.assertEqual((run.status, run.stderr), (2, "error: no source of a module is in empty\n"))

    def test_a_package_from_elsewhere_has_its_modules_from_there(self):
        self.made()
        elsewhere = self.write("app/tools.py", "double = 'elsewhere'\n", self.folder / "other").parent
        run = self.run_with(
            f"import sys, types; app = sys.modules['app'] = types.ModuleType('app'); app.__path__ = [{str(elsewhere)!r}]\n"
            "import app.tools; print(app.tools.double)"
        )
        self.assertEqual((run.stdout.splitlines()[0], self.hits(run)), ("elsewhere", [0]))

    def test_an_extension_module_is_preferred_to_the_source_beside_it(self):
        # What is no library shows that importlib takes it.
        for name in ["single.so", "app/tools.cpython-313-x86_64-linux-gnu.so", "app/parts/__init__.abi3.so", "space/inner.pyd"]:
            self.write(name)
        self.made()
        extensions = ["app.tools", "single", "space.inner"]
        self.assertEqual(_native.Bundle(self.bundle).modules(), sorted(["app", "app.parts.deep", *extensions]))
        with self.assertRaisesRegex(ValueError, "no source of a module"):
            self.made(self.root / "single.py")
        self.write(f"app/tools{EXTENSION_SUFFIXES[0]}")
        run = self.run_with("try:\n    import app\nexcept ImportError as error:\n    print(error.path)")
        self.assertEqual(run.stdout.splitlines()[0], str(self.root / f"app/tools{EXTENSION_SUFFIXES[0]}"))

    def test_an_extension_module_is_found_as_importlib_finds_it(self):
        origins = [getattr(importlib.util.find_spec(name), "origin", "") for name in ["_json", "_queue", "_csv", "_ssl"]]
        origin = next((Path(origin) for origin in origins if origin.endswith(tuple(EXTENSION_SUFFIXES))), None)
        if origin is None:
            self.skipTest("this interpreter has its extension modules built in")
        name = origin.name.partition(".")[0]
        copy = self.root / "app/parts" / origin.name
        shutil.copy(origin, copy)
        shows = f"""
import app.parts.{name} as module
spec = module.__spec__
print(spec.name, spec.origin, spec.cached, spec.has_location, spec.parent, spec.submodule_search_locations)
print(type(spec.loader).__name__, spec.loader.name, spec.loader.path, module.__file__, hasattr(module, "__cached__"))
"""
        plain = self.python("-B", "-c", shows, hook=False)
        for unchecked in [False, True]:
            self.made(unchecked=unchecked)
            run = self.run_with(shows)
            self.assertEqual(run.stdout.splitlines()[:-1], plain.stdout.splitlines())
            # It is this finder that finds it.
            found = _native.Bundle(self.bundle).find_spec(f"app.parts.{name}", [str(copy.parent)])
            self.assertEqual((found.origin, type(found.loader)), (str(copy), ExtensionFileLoader))
            self.assertIsNone(_native.Bundle(self.bundle).find_spec(f"app.parts.{name}", ["/elsewhere"]))
        # What is there no more, or of another interpreter, is not found here.
        copy.unlink()
        self.assertIsNone(_native.Bundle(self.bundle).find_spec(f"app.parts.{name}", [str(copy.parent)]))
        run = self.run_with(f"try:\n    import app.parts.{name}\nexcept ModuleNotFoundError as error:\n    print(error)")
        self.assertEqual(run.stdout.splitlines()[0], f"No module named 'app.parts.{name}'")
        other = copy.with_name(f"{name}.cpython-27-x86_64-linux-gnu.so")
        shutil.copy(origin, other)
        self.made()
        self.assertIn(f"app.parts.{name}", _native.Bundle(self.bundle).modules())
        self.assertIsNone(_native.Bundle(self.bundle).find_spec(f"app.parts.{name}", [str(copy.parent)]))
        # What a damaged index names has to be of the name that is imported.
        pyc = _bundle.compiled(str(self.root / "single.py"), 0)
        paths = [("other", f"app/parts/{other.name}"), (name, f"app/parts/{copy.name}"), ("wrong", f"app/parts/{copy.name}")]
        shutil.copy(origin, copy)
        extensions = [(f"app.parts.{tail}", 0, path) for tail, path in paths]
        made, _ = _native.make_bundle([("single", False, 0, "single.py", pyc)], extensions, [str(self.root)])
        self.bundle.write_bytes(made)
        found = [_native.Bundle(self.bundle).find_spec(full, [str(copy.parent)]) for full, _, _ in extensions]
        self.assertEqual([spec and spec.origin for spec in found], [None, str(copy), None])
        # Which of several it is, importlib knows.
        self.made()
        self.assertNotIn(f"app.parts.{name}", _native.Bundle(self.bundle).modules())

    def test_a_package_is_preferred_to_the_source_beside_it(self):
        self.write("both.py", "VALUE = 'source'\n")
        self.write("both/__init__.py", "VALUE = 'package'\n")
        for paths in [[], [self.root / "both.py", self.root / "both"]]:
            self.made(*paths)
            run = self.run_with("import both; print(both.VALUE)")
            self.assertEqual((run.stdout.splitlines()[0], self.hits(run), run.stderr), ("package", [1], ""))
        # What else makes a package of a folder is not in a bundle, and neither is the source that it hides.
        (self.root / "both/__init__.py").rename(self.root / "both/__init__.pyc")
        self.made()
        self.assertNotIn("both", _native.Bundle(self.bundle).modules())

    def test_the_first_folder_of_a_package_decides(self):
        self.write("p2/__init__.py", "import os\n__path__.insert(0, os.path.join(__path__[0], 'fast'))\n")
        self.write("p2/impl.py", "VALUE = 'slow'\n")
        self.write("p2/fast/impl.py", "VALUE = 'fast'\n")
        self.made()
        run = self.run_with("import p2.impl; print(p2.impl.VALUE)")
        self.assertEqual((run.stdout.splitlines()[0], self.hits(run)), ("fast", [1]))
        run = self.run_with("import p2; p2.__path__.reverse(); import p2.impl; print(p2.impl.VALUE)")
        self.assertEqual((run.stdout.splitlines()[0], self.hits(run)), ("slow", [2]))
        run = self.run_with("import p2; p2.__path__.clear()\ntry:\n    import p2.impl\nexcept ImportError:\n    print('none')")
        self.assertEqual((run.stdout.splitlines()[0], self.hits(run)), ("none", [1]))

    def test_the_first_folder_of_a_namespace_package_decides(self):
        other = self.write("space/inner.py", "NAMES = 'other'\n", self.folder / "other").parent.parent
        self.made()
        for at, names, hits in [(0, "other", 0), (1, "('alpha', 'beta', 3.5)", 1)]:
            run = self.run_with(
                f"import sys; sys.path[:1] = {[str(self.root)]}; sys.path.insert({at}, {str(other)!r})\n"
                "import space.inner; print(space.inner.NAMES, len(list(space.__path__)))"
            )
            self.assertEqual((run.stdout.splitlines()[0], self.hits(run)), (f"{names} 2", [hits]))

    def test_a_path_with_dots_names_what_it_names_without(self):
        run = self.python("-m", "rehydrate", "bundle", "../app", "-o", "../../all.pybundle", hook=False, cwd=self.root / "space")
        self.assertEqual(run.stderr.split(" (")[0], "4 modules -> ../../all.pybundle")
        shutil.move(self.folder, str(self.folder) + "-moved")
        self.addCleanup(shutil.rmtree, str(self.folder) + "-moved")
        self.folder = Path(str(self.folder) + "-moved")
        self.root, self.bundle = self.folder / "project", self.folder / "project" / "space" / ".." / ".." / "all.pybundle"
        run = self.run_with("import app; print(app.__file__, rehydrate.status()['hook']['bundles'][0]['path'])")
        self.assertEqual(run.stdout.splitlines()[0], f"{self.root / 'app' / '__init__.py'} {self.folder / 'all.pybundle'}")
        self.assertEqual(self.hits(run), [2])

    def test_specs_and_loaders_are_copied_as_those_of_sources(self):
        self.made()
        run = self.run_with(
            "import copy, pickle, single\n"
            "copies = [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]\n"
            "for again in copies:\n"
            "    loader, spec = again(single.__loader__), again(single.__spec__)\n"
            "    print(type(loader).__name__, loader.name, loader.path == single.__file__, loader.get_code('single').co_names)\n"
            "    print(spec == single.__spec__, spec.loader == loader, spec.origin == single.__file__)\n"
        )
        # Of a spec, copy.copy keeps the loader.
        of_loader, of_spec = "SourceFileLoader single True ('double',)", "False True True"
        self.assertEqual(run.stdout.splitlines()[:-1], [of_loader, "True False True"] + [of_loader, of_spec] * 2)

    def test_levels_of_optimization(self):
        self.write("single.py", "def double():\n    'doc'\n    assert False\n")
        self.made(level=2)
        code = "import single; single.double(); print(single.double.__doc__)"
        run = self.run_with(code, "-OO")
        self.assertEqual((run.stdout.splitlines()[0], self.hits(run), run.stderr), ("None", [1], ""))
        run = self.run_with("import single")
        self.assertEqual(self.hits(run), [])
        self.assertIn("its level of optimization is 2, this interpreter's 0", run.stderr)

    def test_a_bundle_that_cannot_be_used_is_reported_once(self):
        self.made()
        whole = self.bundle.read_bytes()
        cases = {
            "its magic number is 3439": whole[:6] + struct.pack("<H", 3439) + whole[8:],
            "does not begin with PYB.": b"PYX." + whole[4:],
            "unknown version": whole[:4] + b"\x63" + whole[5:],
            "another length": whole[:-1],
            "ends inside its header": whole[:20],
            "the file is empty": b"",
        }
        for why, damaged in cases.items():
            with self.subTest(why):
                self.bundle.write_bytes(damaged)
                run = self.run_with("import app, single; print(app.double(2), single.double(1))")
                self.assertEqual(run.stdout.splitlines(), ["4 [1, None]", "hits []"])
                self.assertEqual(run.stderr.count("RuntimeWarning"), 1, run)
                self.assertIn(why, run.stderr)
        self.bundle.unlink()
        run = self.run_with("import app; print(app.double(2))")
        self.assertIn("No such file", run.stderr)
        self.assertEqual(run.stdout.splitlines()[0], "4")

    def test_each_bundle_that_cannot_be_used_is_reported_where_it_is_installed(self):
        self.write("one.pybundle", "one")
        self.write("two.pybundle", "two")
        install = "rehydrate.install(bundles=['one.pybundle', 'two.pybundle'])"
        self.write("main.py", f"import rehydrate\n\n{install}\nprint(rehydrate.status()['hook']['warning'])\n")
        run = self.python("-B", "main.py", hook=False)
        told = run.stderr.splitlines()
        self.assertEqual(len(told), 4, run)
        self.assertEqual([told[1].strip(), told[3].strip()], [install, install])
        for line, name in [(told[0], "one"), (told[2], "two")]:
            self.assertRegex(line, rf"main\.py:3: RuntimeWarning: {name}\.pybundle is not used: ")
        self.assertTrue(run.stdout.startswith("one.pybundle is not used: "), run)

    def damage(self, name):
        """Damages the initializer of a module, or the table if `name` is None; gives the bundle's bytes before."""
        whole = self.bundle.read_bytes()
        containers = [at for at in range(len(whole)) if whole.startswith(b"PYI.", at)]
        at = containers[0 if name is None else 1 + _native.Bundle(self.bundle).modules().index(name)]
        self.bundle.write_bytes(whole[:at] + b"X" + whole[at + 1 :])
        return whole

    def test_damage_is_reported_once_of_a_bundle_where_the_import_stands(self):
        self.made(self.root / "app")
        self.damage(None)
        other = self.root / "other.pybundle"
        shutil.copy(self.bundle, other)
        self.made(self.root / "single.py")
        self.damage("single")
        self.write("main.py", f"import rehydrate\nrehydrate.install(bundles=['all.pybundle', {str(other)!r}])\nimport single\nimport app\n")
        run = self.python("-B", "main.py", hook=False)
        self.assertEqual(run.stderr.count("RuntimeWarning"), 2, run)
        self.assertRegex(run.stderr, r"main\.py:3: RuntimeWarning: .*all\.pybundle is not used: module single: ")
        self.assertRegex(run.stderr, r"main\.py:4: RuntimeWarning: .*other\.pybundle is not used: ")

    def test_a_warning_never_ends_an_import(self):
        shutil.copy(warnings.__file__, self.root / "warnings.py")
        self.made(self.root / "warnings.py")
        self.damage("warnings")
        # While it is imported itself it has no `warn` yet; then as errors, and where nobody can be told.
        first = "import sys; sys.modules.pop('warnings', None); import warnings"
        for before, told in [("", 1), ("import sys; sys.stderr = None", 0), ("import sys; sys.stderr.close()", 0)]:
            run = self.run_with(f"{before}\n{first}\nprint(warnings.__file__, callable(warnings.warn))")
            self.assertEqual(run.stdout.splitlines(), [f"{self.root / 'warnings.py'} True", "hits [0]"])
            self.assertEqual(run.stderr.count("RuntimeWarning: "), told, run)
        self.made(self.root / "single.py")
        self.damage("single")
        run = self.run_with("import single; print(single.double(1))", "-W", "error")
        self.assertEqual(run.stdout.splitlines()[0], "[1, None]")
        self.assertEqual(run.stderr.count("RuntimeWarning: "), 1, run)

    @unittest.skipIf(sys.version_info >= (3, 12), "calls of C functions have a limit of their own, which is far off")
    def test_what_is_nested_too_deep_to_be_compared_is_damaged(self):
        # The hashes of -1 and -2 are equal, and so those of what holds them: a set compares them.
        one, other = -1, -2
        for _ in range(900):
            one, other = (one,), (other,)
        source = self.root / "single.py"
        code = compile(source.read_text(), str(source), "exec")
        code = code.replace(co_consts=(*code.co_consts, frozenset([one, other])))
        pyc = _bundle.compiled(str(source), 0)[:16] + marshal.dumps(code)
        made, refused = _native.make_bundle([("single", False, 0, "single.py", pyc), ("bad", False, 0, "bad.py", pyc[:-1])], [], [str(self.root)])
        self.assertEqual([name for name, why in refused], ["bad"])
        self.bundle.write_bytes(made)
        run = self.run_with("import sys; sys.setrecursionlimit(500); import single; print(single.double(1))")
        self.assertEqual(run.stdout.splitlines()[0], "[1, None]")
        self.assertIn("module single: maximum recursion depth exceeded", run.stderr)

    def test_a_finalizer_imports_from_the_bundle_whose_table_is_built(self):
        for at in range(3):
            self.write(f"many/m{at}.py", f"NAMES = [{', '.join(f'({n}.5, {n})' for n in range(1000))}]\n")
        self.made()
        # CPython 3.11 collects when it makes a tuple: in one of these rounds while the table is built.
        run = self.run_with(f"""
import gc, sys
from rehydrate import _native
class Last:
    def __del__(self):
        import single
gc.disable()
for threshold in range(1, 30):
    bundle = _native.Bundle({str(self.bundle)!r})
    sys.modules.pop("single", None)
    sys.meta_path.insert(0, bundle)
    get_code = bundle.find_spec("many.m1", [{str(self.root / "many")!r}]).loader.get_code
    gc.collect()
    last = Last()
    last.itself = last
    del last
    gc.set_threshold(threshold)
    gc.enable()
    get_code("many.m1")
    gc.disable()
    gc.collect()
    print(bundle.hits, end=" ")
    sys.meta_path.remove(bundle)
print()
""")
        self.assertEqual((run.stdout.splitlines()[0].split(), run.stderr), (["2"] * 29, ""))

    def test_what_is_damaged_inside_is_imported_as_ever(self):
        self.made()
        whole = self.bundle.read_bytes()
        containers = [at for at in range(len(whole)) if whole.startswith(b"PYI.", at)]
        # The table stands first; without it nothing can be had.
        for at, hits in [(containers[0], 0), (containers[1], 5)]:
            self.bundle.write_bytes(whole[:at] + b"X" + whole[at + 1 :])
            run = self.run_with(SHOWS)
            self.assertEqual(run.stderr.count("RuntimeWarning"), 1, run)
            self.assertLessEqual(self.hits(run)[0], hits + 3)
            plain = self.python("-B", "-c", "\n" + SHOWS, hook=False)
            self.assertEqual(run.stdout.splitlines()[:-1], plain.stdout.splitlines())

    def test_no_damage_crashes(self):
        (self.root / f"fast{EXTENSION_SUFFIXES[0]}").write_bytes(b"\0")
        self.made(unchecked=True)
        whole = self.bundle.read_bytes()
        seeded = random.Random(2026)
        refused = 0
        # What says where things stand, byte by byte: what each is, for one. Then anything.
        changes = [[(at, value)] for at in range(whole.index(b"PYI.")) for value in range(3)]
        for _ in range(1500):
            places = [seeded.randrange(len(whole)) for _ in range(seeded.choice([1, 1, 2, 4]))]
            changes.append([(at, seeded.choice([0, 1, 0x7F, 0x80, 0xFF, seeded.randrange(256)])) for at in places])
        for change in changes:
            damaged = bytearray(whole)
            for at, value in change:
                damaged[at] = value
            self.bundle.write_bytes(damaged)
            try:
                bundle = _native.Bundle(self.bundle)
                names = bundle.modules()
            except ValueError:
                refused += 1
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for name in names:
                    spec = bundle.find_spec(name, self.around(name))
                    if spec is None:
                        continue
                    made = "NoneType" if isinstance(spec.loader, ExtensionFileLoader) else "code"
                    try:
                        self.assertEqual(type(spec.loader.get_code(name)).__name__, made)
                    except OSError:
                        # A damaged path leads nowhere, or to a folder, which importlib cannot read either.
                        self.assertFalse(os.path.isfile(spec.loader.path))
            if bundle.hits < len(names):
                refused += 1
        self.assertGreater(refused, 300)

    def test_installed_once_and_taken_away(self):
        self.made()
        run = self.run_with(
            "import sys\n"
            f"rehydrate.install(bundles=[{str(self.bundle)!r}])\n"
            "finders = [type(finder).__name__ for finder in sys.meta_path]; print(finders.count('Bundle'))\n"
            "import single; rehydrate.uninstall(); import app\n"
            "print([type(finder).__name__ for finder in sys.meta_path].count('Bundle'), type(app.__loader__).__name__)\n"
            "print(type(single.__loader__).__name__)"
        )
        self.assertEqual(run.stdout.splitlines(), ["1", "0 SourceFileLoader", "BundleLoader", "hits []"])

    def test_four_threads_import_at_once(self):
        for number in range(40):
            self.write(f"many/m{number}.py", f"NAMES = ('alpha', 'beta', {number})\ndef value(first, second):\n    return {number}\n")
        self.write("many/__init__.py")
        self.made()
        run = self.run_with(
            "import importlib, threading\n"
            "def work(shift):\n"
            "    for at in range(40):\n"
            "        number = (at * 7 + shift) % 40\n"
            "        assert importlib.import_module(f'many.m{number}').value(0, 0) == number\n"
            "threads = [threading.Thread(target=work, args=(10 * n,)) for n in range(4)]\n"
            "[thread.start() for thread in threads]; [thread.join() for thread in threads]"
        )
        self.assertEqual((self.hits(run), run.stderr), ([41], ""))

    def test_what_is_loaded_again_and_again_leaves_nothing_behind(self):
        self.made()
        bundle = _native.Bundle(self.bundle)
        loaders = [(name, bundle.find_spec(name, self.around(name)).loader) for name in bundle.modules()]

        def load():
            for name, loader in loaders:
                loader.get_code(name)

        # What there is of free lists fills first.
        growths = [grown(load)[0] for _ in range(20)]
        self.assertLess(min(growths), 10, growths)

    def test_the_command_compiles_what_has_no_pyc_and_writes_none(self):
        run = self.python("-m", "rehydrate", "bundle", "app", "single.py", "-o", "all.pybundle", hook=False)
        self.assertTrue(run.stderr.startswith("5 modules -> all.pybundle ("), run)
        self.assertEqual(list(self.root.rglob("*.pyc")), [])
        self.assertEqual(self.hits(self.run_with("import app, single")), [3])
        self.write("broken.py", "def (")
        run = self.python("-m", "rehydrate", "bundle", ".", "-o", "all.pybundle", hook=False, check=False)
        self.assertEqual((run.status, "SyntaxError" in run.stderr), (1, True), run)
        self.assertEqual(self.hits(self.run_with("import app, single")), [3])


if __name__ == "__main__":
    unittest.main()
