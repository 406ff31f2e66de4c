"""Damaged and made-up streams do not crash the interpreter: a part of the run that `python fuzz.py` does."""

import subprocess
import sys
import unittest

import fuzz


class Fuzz(unittest.TestCase):
    def test_damaged_streams(self):
        for path, runs in ((None, 2000), ("constructor", 1000), ("marshal", 500)):
            with self.subTest(path=path):
                self.assertEqual(fuzz.run(runs, seed=1, path=path, report=lambda line: None), [])

    def test_of_each_kind_of_damage_some_streams_load(self):
        damage = fuzz.Damage(1)
        kinds = {}
        for number in range(600):
            how, stream = damage.stream(number)
            try:
                # What loads is not read here: that is for children, which may crash.
                fuzz._native._build(bytes(stream))
                kinds.setdefault(how, []).append(True)
            except ValueError:
                kinds.setdefault(how, []).append(False)
        self.assertEqual(set(kinds), {"nothing", "byte", "bytes", "numbers", "cut", "splice", "swap", "made_up", "listing"})
        self.assertTrue(all(kinds["nothing"]))
        self.assertTrue(any(kinds["listing"]))
        for how in ("byte", "numbers", "swap"):
            self.assertTrue(any(kinds[how]), how)
            self.assertFalse(all(kinds[how]), how)

    def test_a_crash_is_seen_and_named(self):
        crash = "import sys, fuzz, os; fuzz._native._build = lambda data: os.abort(); fuzz.work(1, [7])"
        child = subprocess.run([sys.executable, "-c", crash], capture_output=True, text=True, cwd=fuzz.os.path.dirname(fuzz.__file__))
        self.assertEqual((child.stdout, child.returncode < 0), ("7\n", True))


if __name__ == "__main__":
    unittest.main()
