"""Loaded modules are what marshal loads."""

import os
import unittest

import equality
import rehydrate
from rehydrate import _native


class StandardLibrary(unittest.TestCase):
    def check(self, modules, **how):
        n_checked = 0
        for module in modules:
            path = equality.source_of(module)
            if path is not None:
                with self.subTest(module=module, **how):
                    self.assertIsNone(equality.module_difference(equality.dump_of(path), **how))
                    n_checked += 1
        return n_checked

    def test_a_sample_of_the_standard_library(self):
        self.assertGreaterEqual(self.check(equality.SAMPLE), 60)

    @unittest.skipUnless(hasattr(os, "fork"), "needs fork")
    def test_modules_that_come_first_in_their_process(self):
        self.assertEqual(self.check(["argparse", "dataclasses", "enum", "inspect", "typing", "turtle"], fresh=True), 6)

    def test_other_profiles_and_sharings(self):
        for profile in ("load", "compact", "core"):
            for sharing in ("structural", "identity", "none"):
                self.check(["argparse", "ast", "dataclasses"], profile=profile, sharing=sharing)

    def test_methods_that_read_the_tables(self):
        path = equality.source_of("contextlib")
        dump = equality.dump_of(path)
        code = rehydrate.loads(rehydrate.dumps(compile(path.read_bytes(), str(path), "exec")))
        self.assertIn("co_positions", "\n".join(equality.describe(code)))
        self.assertGreater(len(equality.describe(code)), 2000)
        self.assertIsNone(equality.module_difference(dump))

    def test_variables_that_are_one_to_the_constructor_are_as_many_as_their_kinds(self):
        code = compile("def f(bb, dd): return lambda: (bb, dd)", "f.py", "exec")
        listing = rehydrate.disassemble(rehydrate.dumps(code, profile="core"))
        self.assertIn("'dd'", listing)
        stream = _native.assemble(listing.replace("'dd'", "'bb'"))
        self.addCleanup(_native._force_path)
        for path in ("direct", "constructor"):
            with self.subTest(path=path):
                _native._force_path(path)
                function = rehydrate.loads(stream).co_consts[0]
                self.assertEqual(function.co_cellvars, ("bb", "bb"))
                self.assertEqual(function.co_varnames, ("bb", "bb"))


if __name__ == "__main__":
    unittest.main()
