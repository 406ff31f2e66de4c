"""Prints what CPython derives of each code object of the .pyc files named: a line each, sorted."""

import marshal
import opcode
import sys

RESUME = opcode.opmap["RESUME"]


def numbers(code):
    opcodes = code.co_code[::2]
    first_traceable = opcodes.index(RESUME) if RESUME in opcodes else len(opcodes)
    yield code.co_nlocals, len(code.co_cellvars), len(code.co_freevars), first_traceable
    for constant in code.co_consts:
        if isinstance(constant, type(code)):
            yield from numbers(constant)


lines = []
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        code = marshal.loads(file.read()[16:])
    lines += [" ".join(map(str, line)) for line in numbers(code)]
print("\n".join(sorted(lines)))
