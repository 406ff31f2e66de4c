"""Records which code objects of a module run while it is imported: their qualified names, one a line.

    python3.X record_executed.py MODULE [COMMAND] > ran.txt
    rehydrate lazy-report PATH/TO/MODULE.cpython-3X.pyc --executed ran.txt

MODULE is imported; COMMAND, Python code in which the module is called `m`, runs after that. Works with Python 3.8 to 3.15:
`sys.monitoring` tells from 3.12 on, `sys.setprofile` before. Names are those of `co_qualname`; before 3.11 code objects have
none, and each gets that of the code object that holds it in front of its own.
"""
import importlib.util
import sys
import types

CO_NEWLOCALS = 2


def qualified(module_code):
    """The qualified name of every code object below the module's own, by identity, with the code object."""
    names = {}
    todo = [(module_code, module_code.co_name, "")]
    while todo:
        code, name, prefix = todo.pop()
        names[id(code)] = (getattr(code, "co_qualname", name), code)
        for held in code.co_consts:
            if isinstance(held, types.CodeType):
                nested = prefix + held.co_name
                inside = nested + (".<locals>." if held.co_flags & CO_NEWLOCALS else ".")
                todo.append((held, nested, inside))
    return names


def record(work):
    """Every code object that runs during `work`, in the order in which they first do."""
    ran = {}

    def note(code):
        ran.setdefault(id(code), code)

    if hasattr(sys, "monitoring"):
        events = sys.monitoring.events
        tool = sys.monitoring.PROFILER_ID
        sys.monitoring.use_tool_id(tool, "record_executed")

        def start(code, offset):
            note(code)
            # Once is enough, and the rest runs at full speed.
            return sys.monitoring.DISABLE

        sys.monitoring.register_callback(tool, events.PY_START, start)
        sys.monitoring.set_events(tool, events.PY_START)
        try:
            work()
        finally:
            sys.monitoring.set_events(tool, 0)
            sys.monitoring.free_tool_id(tool)
    else:
        def profile(frame, event, argument):
            if event == "call":
                note(frame.f_code)

        sys.setprofile(profile)
        try:
            work()
        finally:
            sys.setprofile(None)
    return list(ran.values())


def main(arguments):
    if not 1 <= len(arguments) <= 2:
        sys.exit(__doc__)
    name = arguments[0]
    # What the module needs is imported with it, and may run first; what is there already would not run again.
    sys.modules.pop(name, None)

    def work():
        module = importlib.import_module(name)
        if len(arguments) == 2:
            exec(arguments[1], {"m": module})

    ran = record(work)
    module_file = importlib.util.find_spec(name).origin
    own = [code for code in ran if code.co_name == "<module>" and code.co_filename == module_file]
    if not own:
        sys.exit("%s was not executed from %s: is it built in?" % (name, module_file))
    names = qualified(own[0])
    for code in ran:
        if id(code) in names:
            print(names[id(code)][0])


if __name__ == "__main__":
    main(sys.argv[1:])
