"""Writes data/inline_caches.tsv: how many inline cache entries follow each opcode.

    python3 tools/inline_caches.py PYTHON... > data/inline_caches.tsv

Asks each interpreter's own `opcode` module. Inline caches came with CPython 3.11; older interpreters are left out, and
so are opcodes that marshal never sees: specialized and instrumented ones.
"""
import subprocess
import sys

ASK = """
import opcode, sys
entries = getattr(opcode, "_inline_cache_entries", ())
# By name from 3.13 on, by opcode before.
by_name = dict(entries) if hasattr(entries, "items") else dict(zip(opcode.opname, entries))
for name, n in sorted(by_name.items(), key=lambda item: opcode.opmap.get(item[0], 0)):
    if n and name in opcode.opmap:
        print("3.%d" % sys.version_info[1], opcode.opmap[name], name, n, sep="\\t")
"""

print("python", "opcode", "name", "entries", sep="\t")
for python in sys.argv[1:]:
    sys.stdout.write(subprocess.run([python, "-c", ASK], check=True, stdout=subprocess.PIPE, text=True).stdout)
