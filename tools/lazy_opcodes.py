"""Writes data/lazy_opcodes.tsv and data/opcode_names.tsv: how bytecode is rewritten for the lazy container, and its opcodes.

    python3 tools/lazy_opcodes.py data PYTHON...

Asks each interpreter's own `opcode` and `dis` modules: which opcodes take a constant or a name, and by how many bits the
oparg of a name is shifted, for which `dis` is shown bytecode made for the purpose. Each such opcode gets others in its
place, from the numbers that the version leaves unused: the highest first, because 3.11 and 3.12 give the lowest to
specialized instructions that `opcode` does not number. 0 and 255 are CPython's own.

A version that is in the data already keeps its numbers, which are part of the format: the data is only made anew as a
whole, and the test of it in src/lazy/opcodes.rs says so.
"""
import subprocess
import sys

ASK = r"""
import dis, opcode, sys, types

python = "3.%d" % sys.version_info[1]
opmap = {name: op for name, op in opcode.opmap.items() if op < 256}
# What marshal never sees: instrumented and specialized instructions.
seen = {op: name for name, op in opmap.items() if not name.startswith("INSTRUMENTED_")}
used = set(opmap.values()) | set(getattr(opcode, "_specialized_opmap", {}).values()) | {0, 255}
unused = [op for op in range(255, -1, -1) if op not in used]
# Behind an instruction stand its inline caches, which the constructor of code objects looks for.
MOST_CACHES = 16
names = tuple("n%d" % n for n in range(64))


def code(bytecode):
    def f():
        pass
    if hasattr(f.__code__, "replace"):
        return f.__code__.replace(co_code=bytecode, co_names=names)
    c = f.__code__
    return types.CodeType(0, 0, 0, 1, c.co_flags, bytecode, (None,), names, (), "f", "f", 1, b"")


def shift_of(op):
    def index(oparg):
        first = next(dis.get_instructions(code(bytes([op, oparg]) + bytes(2 * MOST_CACHES))))
        return names.index(first.argval)
    shifts = [s for s in range(8) if all(index(oparg) == oparg >> s for oparg in range(64))]
    assert len(shifts) == 1, (op, shifts)
    return shifts[0]


def row(op, name, replaced, operand, shift=0):
    print("rewrite", python, op, name, replaced, operand, shift, sep="\t")


row(opmap["EXTENDED_ARG"], "EXTENDED_ARG", opmap["EXTENDED_ARG"], "bits")
for op in sorted(set(opcode.hasconst) & set(seen)):
    name = seen[op]
    if name == "LOAD_CONST":
        row(unused.pop(0), "LAZY_LOAD_CONSTANT", op, "constant")
        row(unused.pop(0), "MAKE_INT", op, "int")
        row(unused.pop(0), "LAZY_LOAD_COMMON", op, "common")
    elif name == "RETURN_CONST":
        row(unused.pop(0), "LAZY_RETURN_CONSTANT", op, "constant")
        row(unused.pop(0), "RETURN_INT", op, "int")
        row(unused.pop(0), "LAZY_RETURN_COMMON", op, "common")
    else:
        row(unused.pop(0), "LAZY_" + name, op, "constant")
for op in sorted(set(opcode.hasname) & set(seen)):
    row(unused.pop(0), "LAZY_" + seen[op], op, "name", shift_of(op))
for op, name in sorted(seen.items()):
    print("name", python, op, name, sep="\t")
"""

folder, pythons = sys.argv[1], sys.argv[2:]
files = {
    "rewrite": open(folder + "/lazy_opcodes.tsv", "w", newline="\n"),
    "name": open(folder + "/opcode_names.tsv", "w", newline="\n"),
}
print("python", "opcode", "name", "replaces", "operand", "shift", sep="\t", file=files["rewrite"])
print("python", "opcode", "name", sep="\t", file=files["name"])
for python in pythons:
    said = subprocess.run([python, "-c", ASK], check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout
    for line in said.splitlines():
        kind, _, row = line.partition("\t")
        print(row, file=files[kind])
