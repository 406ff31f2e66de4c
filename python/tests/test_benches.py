"""The benchmark of imports measures what it says: with the hook, every module of the standard library is from its initializer."""

import subprocess
import sys
import unittest
from pathlib import Path

import support

BENCHES = Path(__file__).parent.parent / "benches"


class Imports(unittest.TestCase):
    def test_the_standard_library_is_imported_from_initializers(self):
        process = subprocess.run(
            [sys.executable, str(BENCHES / "imports.py"), "--rounds", "1", "library"],
            env=support.CLEAN | {"PYTHONPATH": str(support.PACKAGE)},
            capture_output=True,
            text=True,
        )
        self.assertEqual((process.returncode, process.stderr), (0, ""), process.stdout)
        self.assertRegex(process.stdout, r"library, [12]\d\d modules +plain .+\n +hook ")


if __name__ == "__main__":
    unittest.main()
