"""What the interpreter says of its own layout decides how objects are made."""

import json
import subprocess
import sys
import tempfile
import unittest

import support
from rehydrate import _native

#: Changes a number of the interpreter's table before the extension is imported, and says what that does.
DOCTORED = """
import ctypes, json, sys
table = (ctypes.c_uint64 * 200).in_dll(ctypes.pythonapi, "_PyRuntime")
table[int(sys.argv[1])] = int(sys.argv[2])
import rehydrate
def function(x, *, y=("a", 2.5)): return [x for x in y]
code = function.__code__
status = rehydrate.status()
is_equal = rehydrate.loads(rehydrate.dumps(code)) == code
rehydrate.install()
import colorsys
hook = rehydrate.status()["hook"]
print(json.dumps([status["path"], status["reason"], is_equal, hook["hits"] + hook["misses"]]))
"""


@unittest.skipIf(sys.version_info < (3, 13), "the interpreter has no table of its layout")
class Offsets(unittest.TestCase):
    def doctored(self, at, value):
        # What the hook writes stays out of the interpreter's own folders, and what others wrote there is not read.
        with tempfile.TemporaryDirectory() as folder:
            process = subprocess.run(
                [sys.executable, "-c", DOCTORED, str(at), str(value)],
                env=support.CLEAN | {"PYTHONPATH": str(support.PACKAGE), "PYTHONPYCACHEPREFIX": folder},
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
        return json.loads(process.stdout)

    def test_the_table_is_what_is_known(self):
        offsets = {name: (ours, theirs) for name, _, ours, theirs in _native._offsets()}
        self.assertEqual(len(offsets), 23)
        self.assertEqual(offsets["its version"][1], sys.hexversion)
        needed, size = offsets.pop("the size of an interpreter's state")
        self.assertGreaterEqual(size, needed)
        for name, (ours, theirs) in offsets.items():
            self.assertEqual(ours, theirs, name)

    def test_what_is_left_as_it_is_changes_nothing(self):
        _, at, ours, _ = _native._offsets()[0]
        self.assertEqual(self.doctored(at, ours), ["direct", None, True, 1])

    def test_every_other_number_is_noticed(self):
        for name, at, ours, _ in _native._offsets():
            with self.subTest(name):
                path, reason, is_equal, n_asked = self.doctored(at, ours - 1 if ours else 1)
                # The .pyc is read as fast, so the hook leaves modules to it.
                self.assertEqual((path, is_equal, n_asked), ("marshal", True, 0))
                self.assertEqual(reason, f"what the interpreter says of its layout is not what is known: {name}")


if __name__ == "__main__":
    unittest.main()
