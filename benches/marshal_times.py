"""The interpreter's side of against_marshal: says what it is, compiles its standard library, times its marshal.

about           prints version, magic number and standard library, a line each
compile FOLDER  compiles the standard library into FOLDER
times           obeys standard input: "take N" and N bytes, one dump; "loads" and "loads+dumps", each answered by seconds
"""

import gc
import marshal
import sys
import time


def about():
    import importlib.util
    import sysconfig

    print("%d.%d.%d" % sys.version_info[:3])
    print(int.from_bytes(importlib.util.MAGIC_NUMBER[:2], "little"))
    print(sysconfig.get_paths()["stdlib"])


def compile_library(target):
    import os
    import py_compile
    import sysconfig
    import warnings

    warnings.simplefilter("ignore")
    library = sysconfig.get_paths()["stdlib"]
    for folder, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name not in ("__pycache__", "site-packages", "dist-packages")]
        for name in names:
            path = os.path.join(folder, name)
            if not name.endswith(".py"):
                continue
            try:
                py_compile.compile(path, cfile=os.path.join(target, os.path.relpath(path, library)) + "c", doraise=True)
            except Exception:
                pass  # The tests have files that are not Python on purpose.


def loads(files):
    load = marshal.loads
    for data in files:
        load(data)


def loads_dumps(files):
    load, dump = marshal.loads, marshal.dumps
    for data in files:
        dump(load(data))


def times():
    passes = {b"loads\n": loads, b"loads+dumps\n": loads_dumps}
    stdin = sys.stdin.buffer
    files = []
    for line in iter(stdin.readline, b""):
        if line.startswith(b"take "):
            files.append(stdin.read(int(line[5:])))
            continue
        gc.collect()
        gc.disable()
        start = time.perf_counter()
        passes[line](files)
        seconds = time.perf_counter() - start
        gc.enable()
        print(repr(seconds), flush=True)


{"about": about, "compile": compile_library, "times": times}[sys.argv[1]](*sys.argv[2:])
