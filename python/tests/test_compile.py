"""`compile_file` and the command line."""

import marshal
import os
import py_compile
import re
import struct
import subprocess
import sys
import unittest
from importlib.util import cache_from_source
from pathlib import Path

import rehydrate
from rehydrate import __main__ as command
from rehydrate import _compile
from support import CLEAN, PACKAGE, TAG, Project


def header(path):
    return Path(path).read_bytes()[:16]


class CompileFile(Project):
    def test_a_source_is_compiled_to_where_imports_look(self):
        path = self.write("module.py", "VALUE = 1")
        target = rehydrate.compile_file(path)
        self.assertEqual(target, str(self.cache("module.py")))
        stat = path.stat()
        flags, mtime, size = struct.unpack("<III", header(target)[4:])
        self.assertEqual((flags, mtime, size), (0, int(stat.st_mtime), stat.st_size))
        self.assertEqual(header(self.cache("module.py", "pyc")), header(target))
        run = self.python("-c", "import module; print(module.VALUE)")
        self.assertEqual((run.stdout, run.hook["missed"]), ("1\n", []))

    def test_its_header_is_what_py_compile_writes(self):
        path = self.write("module.py", "'''doc'''\nassert 0")
        modes = [None, *py_compile.PycInvalidationMode]
        for mode in modes:
            for optimize in (-1, 0, 1, 2):
                with self.subTest(mode=mode, optimize=optimize):
                    pyc = py_compile.compile(str(path), doraise=True, optimize=optimize, invalidation_mode=mode)
                    target = rehydrate.compile_file(path, optimize=optimize, invalidation_mode=mode)
                    self.assertEqual(target, pyc.removesuffix("pyc") + "pyinit")
                    self.assertEqual(header(target), header(pyc))
                    self.assertEqual(rehydrate.load(target), marshal.loads(Path(pyc).read_bytes()[16:]))

    def test_source_date_epoch(self):
        self.write("module.py")
        script = "import rehydrate; print(rehydrate.compile_file('module.py'))"
        target = self.python("-c", script, env={"SOURCE_DATE_EPOCH": "0"}).stdout.strip()
        self.assertEqual(header(self.root / target)[4], 3)

    def test_a_pyc_keeps_its_header(self):
        path = self.write("module.py", "VALUE = 1")
        pyc = py_compile.compile(str(path), str(self.root / "other.pyc"))
        for profile in ("load", "compact", "core"):
            target = rehydrate.compile_file(Path(pyc), profile=profile, sharing="identity")
            self.assertEqual(target, str(self.root / "other.pyinit"))
            self.assertEqual(header(target), header(pyc))
            self.assertEqual(rehydrate.load(target).co_filename, str(path))
        for options in ({"optimize": 1}, {"invalidation_mode": py_compile.PycInvalidationMode.CHECKED_HASH}):
            with self.assertRaisesRegex(ValueError, "are for sources"):
                rehydrate.compile_file(pyc, **options)

    def test_a_target_can_be_named(self):
        path = self.write("module.py", "VALUE = 1")
        target = self.root / "new" / "folders" / "x.bin"
        self.assertEqual(rehydrate.compile_file(path, target), str(target))
        self.assertEqual(os.listdir(target.parent), ["x.bin"])
        self.assertFalse(self.cache("module.py", "pyc").exists())

    def test_what_is_no_regular_file_is_not_replaced(self):
        path = self.write("module.py", "VALUE = 1")
        link = self.root / "link"
        link.symlink_to(path)
        for target in (link, self.root, "/dev/null"):
            with self.assertRaises(FileExistsError):
                rehydrate.compile_file(path, target)
        self.assertEqual(path.read_text(), "VALUE = 1")

    @unittest.skipUnless(sys.platform == "linux", "needs a folder in which nobody can write")
    def test_what_cannot_be_written_has_its_own_name(self):
        path = self.write("module.py", "VALUE = 1")
        with self.assertRaises(OSError) as raised:
            rehydrate.compile_file(path, "/proc/module.pyinit")
        self.assertEqual((raised.exception.filename, raised.exception.filename2), ("/proc/module.pyinit", None))

    def test_refusals(self):
        bad = self.write("bad.py", "def f(:")
        with self.assertRaises(SyntaxError):
            rehydrate.compile_file(bad)
        pyc = self.write("bad.pyc", "junk that is no pyc")
        with self.assertRaisesRegex(ValueError, "at byte 0x0"):
            rehydrate.compile_file(pyc)
        for name in ("none.py", "none.pyc"):
            with self.assertRaises(FileNotFoundError):
                rehydrate.compile_file(self.root / name)
        self.assertEqual(list(self.root.rglob("*.pyinit")), [])


class CompileAll(Project):
    """`python -m rehydrate compile` for sources."""

    def setUp(self):
        super().setUp()
        self.write("package/__init__.py")
        self.write("package/module.py", "VALUE = 1\ndef f(): return f.__code__.co_filename")
        self.write("package/inner/__init__.py")
        self.write("package/inner/deep/deeper.py")
        self.write("top.py", "'''doc'''\nassert 0")
        self.write("readme.txt", "no source")

    def compile(self, *arguments, status=0, **how):
        run = self.python("-m", "rehydrate", "compile", *arguments, check=False, hook=False, **how)
        self.assertEqual(run.status, status, run)
        return run

    def found(self, extension="pyinit"):
        return sorted(re.sub(r"\..*", "", path.name) + re.sub(r".*\.(opt-.|cpython-\d+t?)\.\w+$", r" \1", path.name).replace(f" {TAG}", "")
                      for path in self.root.rglob(f"*.{extension}"))

    def test_folders_are_walked(self):
        said = self.compile(".").stdout
        self.assertEqual(self.found(), ["__init__", "__init__", "deeper", "module", "top"])
        self.assertEqual(self.found("pyc"), self.found())
        self.assertIn("Listing './package'...", said)
        self.assertIn("Compiling './package/module.py'...", said)
        self.assertIn(f"Compiling './package/__pycache__/module.{TAG}.pyc'...", said)
        run = self.python("-c", "import package.module, package.inner.deep.deeper")
        self.assertEqual(run.hook["missed"], [])

    def test_what_is_current_is_left_alone(self):
        self.compile("-q", ".")
        before = {path: path.stat().st_mtime_ns for path in self.root.rglob("*.py[ci]*")}
        self.assertNotIn("Compiling", self.compile(".").stdout)
        self.assertEqual({path: path.stat().st_mtime_ns for path in self.root.rglob("*.py[ci]*")}, before)
        self.assertEqual(self.compile("-f", ".").stdout.count("Compiling"), 10)
        self.cache("top.py").write_bytes(self.cache("top.py").read_bytes()[:20] + b"\xff")
        self.assertEqual(self.compile("top.py").stdout.count("Compiling"), 1)
        self.cache("top.py").unlink()
        self.assertEqual(self.compile("top.py").stdout.count("Compiling"), 1)
        os.utime(self.root / "top.py", (1, 1))
        self.assertEqual(self.compile("top.py").stdout.count("Compiling"), 2)

    def test_levels_quiet_and_patterns(self):
        self.assertEqual(self.compile("-q", "-l", ".").stdout, "")
        self.assertEqual(self.found(), ["top"])
        self.compile("-q", "-r", "1", ".")
        self.assertEqual(self.found(), ["__init__", "module", "top"])
        self.compile("-q", "-x", "deep", ".")
        self.assertEqual(self.found(), ["__init__", "__init__", "module", "top"])
        self.assertIn("Can't list 'none'", self.compile("-q", "none").stdout)
        self.assertEqual(self.compile("-qq", "none").stdout, "")

    def test_lists_of_files(self):
        self.write("list", "top.py\npackage/inner\n")
        self.compile("-q", "-i", "list")
        self.assertEqual(self.found(), ["__init__", "deeper", "top"])
        self.forget()
        self.compile("-q", "-i", "-", stdin="top.py\n")
        self.assertEqual(self.found(), ["top"])
        self.compile("-q", "-i", "none", status=1)

    def test_optimization_levels(self):
        self.compile("-q", "-o", "0", "-o", "2", "-o", "1", "top.py")
        self.assertEqual(self.found(), ["top", "top opt-1", "top opt-2"])
        self.assertIsNone(rehydrate.load(self.cache("top.py", level=".opt-2")).co_consts[0])
        run = self.python("-OO", "-c", "import top; print(top.__doc__)")
        self.assertEqual((run.stdout, run.hook["missed"]), ("None\n", []))

    def test_invalidation_modes(self):
        for mode, flags in [("timestamp", 0), ("checked-hash", 3), ("unchecked-hash", 1)]:
            self.compile("-q", "-f", "--invalidation-mode", mode, "top.py")
            self.assertEqual(header(self.cache("top.py"))[4], flags)
            self.assertEqual(header(self.cache("top.py")), header(self.cache("top.py", "pyc")))

    def test_paths_in_tracebacks(self):
        cases = [(["-d", "/app", "package"], "/app/module.py"), (["-s", str(self.root), "-p", "/srv", str(self.root)], "/srv/package/module.py")]
        for options, wanted in cases:
            self.compile("-q", "-f", *options)
            self.assertEqual(rehydrate.load(self.cache("package/module.py")).co_filename, wanted)
        self.compile("-d", "/app", "-s", "x", ".", status=2)

    def test_links_that_lead_out(self):
        outside = self.write("outside.py", folder=self.folder)
        (self.root / "link.py").symlink_to(outside)
        self.compile("-q", "-e", ".", ".")
        self.assertNotIn("link", self.found())
        self.compile("-q", ".")
        self.assertIn("link", self.found())

    def test_workers(self):
        for workers in ("2", "0"):
            self.forget()
            self.compile("-q", "-j", workers, ".")
            self.assertEqual(self.found(), ["__init__", "__init__", "deeper", "module", "top"])
        self.compile("-j", "-1", ".", status=2)
        self.assertIn("no regular expression", self.compile("-x", "(", ".", status=2).stderr)

    def test_nobody_reads_what_it_says(self):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "wb") as pipe:
            command = [sys.executable, "-m", "rehydrate", "compile", "."]
            environment = CLEAN | {"PYTHONPATH": str(PACKAGE)}
            process = subprocess.run(command, cwd=self.root, env=environment, stdout=pipe, stderr=subprocess.PIPE)
        self.assertEqual((process.returncode, process.stderr), (1, b""))

    @unittest.skipUnless(os.path.exists("/dev/full"), "no such device")
    def test_what_it_says_cannot_be_written(self):
        with open("/dev/full", "wb") as full:
            command = [sys.executable, "-m", "rehydrate", "compile", "."]
            environment = CLEAN | {"PYTHONPATH": str(PACKAGE)}
            process = subprocess.run(command, cwd=self.root, env=environment, stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(process.returncode, 1)
        self.assertIn(b"No space left", process.stderr)
        self.assertNotIn(b"Traceback", process.stderr)

    def test_what_cannot_be_compiled_is_named_and_the_rest_is_compiled(self):
        self.write("a_bad.py", "def f(:")
        said = self.compile("-q", ".", status=1).stdout
        self.assertIn("a_bad.py", said)
        self.assertEqual(self.found(), ["__init__", "__init__", "deeper", "module", "top"])
        self.assertEqual(self.compile("-qq", ".", status=1).stdout, "")
        self.assertEqual(self.compile("-q", "-j", "2", ".", status=1).stdout.count("SyntaxError"), 1)
        self.cache("top.py").unlink()
        self.cache("top.py").mkdir()
        self.assertIn("FileExistsError", self.compile("-q", "top.py", status=1).stdout)

    def test_profiles_and_sharings(self):
        sizes = set()
        for profile in ("load", "compact", "core"):
            self.compile("-q", "-f", "--profile", profile, "--sharing", "none", "package/module.py")
            sizes.add(self.cache("package/module.py").stat().st_size)
        self.assertEqual(len(sizes), 3)
        self.compile("--profile", "other", ".", status=2)
        self.compile(status=2)


class RustTool(Project):
    """Everything else is the Rust tool's."""

    def run_tool(self, *arguments, status=0, **how):
        run = self.python("-m", "rehydrate", *arguments, check=False, hook=False, **how)
        self.assertEqual(run.status, status, run)
        return run

    def test_compile_of_pycs_is_its_own(self):
        path = self.write("module.py", "VALUE = 1")
        pyc = py_compile.compile(str(path), str(self.root / "module.pyc"))
        said = self.run_tool("compile", "module.pyc").stdout
        self.assertIn("module.pyc -> module.pyinit", said)
        self.run_tool("compile", "module.pyc", "-o", "other.bin")
        self.assertTrue((self.root / "other.bin").exists())
        self.assertEqual(rehydrate.load(self.root / "other.bin"), marshal.loads(Path(pyc).read_bytes()[16:]))
        py_compile.compile(str(path))
        self.run_tool("compile", "__pycache__", "--out-dir", "build")
        self.assertTrue((self.root / "build" / "__pycache__" / f"module.{TAG}.pyinit").exists())

    def test_which_compile_it_is(self):
        for arguments, is_compileall in [
            (["."], True),
            (["-q", "package", "module.py"], True),
            (["-o", "1", "."], True),
            (["-i", "-"], True),
            (["--help"], True),
            (["module.pyc"], False),
            (["-"], False),
            (["x.marshal", "--python", "3.13"], False),
            (["__pycache__/"], False),
            (["a/__pycache__"], False),
            ([".", "--out-dir=build"], False),
            (["--format", "lazy", "package"], False),
            (["--profile", "core", "package"], True),
            (["module.pyc", "-o", "x"], False),
        ]:
            self.assertEqual(command._is_compileall(arguments), is_compileall, arguments)

    def test_the_options_of_the_rust_tool_are_known(self):
        helps = self.run_tool("compile", "x.pyc", "--help").stdout, _compile._parser().format_help()
        rust, own = (set(re.findall(r"^ +(?:-\w, )?(--[\w-]+)", text, re.MULTILINE)) for text in helps)
        self.assertEqual(rust - own, set(command.RUST_OPTIONS))

    def test_other_commands(self):
        self.write("module.py", "VALUE = 'a value'")
        self.python("-c", "import module")
        initializer = self.cache("module.py")
        self.assertIn("'a value'", self.run_tool("disasm", initializer).stdout)
        self.assertIn("ok", self.run_tool("verify", initializer).stdout)
        self.assertIn("MAKE_STRING", self.run_tool("isa").stdout)
        self.assertIn("rehydrate", self.run_tool("--version").stdout)
        self.assertIn("Usage", self.run_tool("--help").stdout)
        self.assertIn("in the manner of compileall", self.run_tool("help").stdout.replace("\n", " "))
        self.assertIn("Usage", self.run_tool(status=2).stderr)
        self.assertIn("unrecognized", self.run_tool("nothing", status=2).stderr)
        initializer.write_bytes(b"junk")
        self.assertIn("error", self.run_tool("verify", initializer, status=1).stderr)
        self.run_tool("disasm", "none.pyc", status=2)

    def test_standard_input_and_output(self):
        path = self.write("module.py", "VALUE = 1")
        pyc = Path(cache_from_source(path))
        self.python("-c", "import module")
        for hidden in (["compile", "-", "-o", "-"], ["disasm", "-"]):
            with open(pyc, "rb") as file:
                process = subprocess.run(
                    [sys.executable, "-m", "rehydrate", *hidden],
                    stdin=file,
                    capture_output=True,
                    env=os.environ | {"PYTHONPATH": str(Path(rehydrate.__file__).parent.parent)},
                )
            self.assertEqual(process.returncode, 0, process)
            self.assertIn(b"PYI." if hidden[0] == "compile" else b"RETURN_VALUE", process.stdout)


if __name__ == "__main__":
    unittest.main()
