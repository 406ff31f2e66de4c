"""Compiles modules of this interpreter's standard library: compile.py FOLDER MODULES [IMPORTS]

MODULES and IMPORTS are separated by commas. Each module becomes FOLDER/NAME.pyc, and FOLDER/NAME.again: what
marshal.dumps(marshal.loads(...)) makes of its dump. A module that this version does not have is left out. What a dump
looks like depends on what its process did before, so each is made in a child that has only imported IMPORTS.
"""
# These two are built in, and bring nothing along.
import marshal
import posix
import sys
from _frozen_importlib_external import MAGIC_NUMBER


def source_of(module):
    for folder in sys.path:
        try:
            with open(folder + "/" + module + ".py", "rb") as file:
                return file.read()
        except OSError:
            pass
    return None


def write(path, dump):
    with open(path, "wb") as file:
        file.write(dump)


folder, modules = sys.argv[1:3]
for name in sys.argv[3].split(",") if len(sys.argv) > 3 else []:
    __import__(name)
posix.mkdir(folder)
for module in modules.split(","):
    source = source_of(module)
    if source is None:
        continue
    child = posix.fork()
    if child == 0:
        dump = marshal.dumps(compile(source, module + ".py", "exec", 0, True))
        path = folder + "/" + module.replace("/", ".")
        header = MAGIC_NUMBER + bytes(12 if sys.version_info >= (3, 7) else 8)
        write(path + ".pyc", header + dump)
        write(path + ".again", marshal.dumps(marshal.loads(dump)))
        posix._exit(0)
    if posix.waitpid(child, 0)[1] != 0:
        sys.exit(module + " does not compile")
