"""Writes data/inline_caches.tsv and data/superinstructions.tsv: what each CPython keeps behind its instructions.

    python3 tools/inline_caches.py PYTHON... --dir data

Asks each interpreter's own `opcode` module how many inline cache entries follow each opcode, and a code object that it
makes of each opcode what stands in the first entry then (`_co_code_adaptive`); and of each pair of opcodes, whether the two
become one superinstruction. Inline caches came with CPython 3.11; older interpreters are left out, and so are opcodes that
marshal never sees: specialized and instrumented ones.
"""
import argparse
import pathlib
import subprocess
import sys

ASK = """
import opcode, sys

python = "3.%d" % sys.version_info[1]
entries = getattr(opcode, "_inline_cache_entries", ())
# By name from 3.13 on, by opcode before.
by_name = dict(entries) if hasattr(entries, "items") else dict(zip(opcode.opname, entries))
# To read the bytecode of a code object with one of these crashes the interpreter.
never = ("INSTRUMENTED_", "CACHE", "RESERVED", "ENTER_EXECUTOR", "TRACE_RECORD")
ordinary = {name: op for name, op in sorted(opcode.opmap.items(), key=lambda item: item[1])
            if op < 256 and not name.startswith(never)}


def made(units):
    return (lambda: None).__code__.replace(co_code=bytes(units))._co_code_adaptive


for name, op in ordinary.items() if by_name else ():
    n = by_name.get(name, 0)
    bytecode = made([op, 0] + [0, 0] * n)
    assert bytecode[:2] == bytes([op, 0]) and not any(bytecode[4:]), name
    print(python, op, name, n, int.from_bytes(bytecode[2:4], "little"), sep="\\t")

print()
# Only CPython 3.12 makes superinstructions when it makes a code object.
short = {name: op for name, op in ordinary.items() if not by_name.get(name)}
for first, op in short.items() if by_name else ():
    for second, next_op in short.items():
        bytecode = made([op, 0, next_op, 0])
        if bytecode[0] != op:
            assert bytecode[1:] == bytes([0, next_op, 0])
            print(python, op, next_op, bytecode[0], first + "__" + second, sep="\\t")
"""

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("pythons", nargs="+", metavar="PYTHON")
parser.add_argument("--dir", type=pathlib.Path, default=pathlib.Path("data"))
options = parser.parse_args()

caches = "python\topcode\tname\tentries\tcounter\n"
superinstructions = "python\tfirst\tsecond\tbecomes\tname\n"
for python in options.pythons:
    answer = subprocess.run([python, "-c", ASK], check=True, stdout=subprocess.PIPE, text=True).stdout
    some, more = answer.split("\n\n") if not answer.startswith("\n") else ("", answer[1:])
    caches += some + "\n" if some else ""
    superinstructions += more
(options.dir / "inline_caches.tsv").write_text(caches)
(options.dir / "superinstructions.tsv").write_text(superinstructions)
