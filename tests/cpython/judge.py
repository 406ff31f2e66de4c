"""Says whether marshal dumps hold the same objects, by what this interpreter makes of them.

Reads questions, one a line: `MODE<TAB>LEFT<TAB>RIGHT`; answers each with a line: `same`, or what differs. A file whose name
ends in .pyc has a header. The modes say which sharing must agree, besides types, values and all fields of code objects:

value   that of lists, dicts, sets and code objects
merged  that too; and equal immutable objects of the left may be one on the right, not the other way
exact   that of all objects but numbers and the like
refuse  none: both must be refused

How: every object gets a class, a number that stands for its type and value. A tuple's value is the classes of its items.
An object that has identity is numbered in the order of discovery instead, and what it holds is kept beside. So two dumps
are the same when their roots have one class and the n-th objects with identity hold the same.
"""
import marshal
import struct
import sys
import types

CODE = types.CodeType
FIELDS = [name for name in """
    co_argcount co_posonlyargcount co_kwonlyargcount co_nlocals co_stacksize co_flags co_consts co_names co_filename co_name
    co_qualname co_firstlineno co_linetable co_exceptiontable
""".split() if hasattr(CODE, name)]
if not hasattr(CODE, "co_linetable"):
    FIELDS.append("co_lnotab")
# Some versions make these anew whenever they are asked for, so which object they are says nothing.
MADE_ANEW = ["co_code", "co_varnames", "co_freevars", "co_cellvars"]
FROZENDICT = (frozendict,) if sys.version_info >= (3, 15) else ()  # noqa: F821
SLICE = (slice,) if sys.version_info >= (3, 14) else ()
NUMBERS = (bool, int, float, complex, type(None), type(Ellipsis), type)
MUTABLE = (list, dict, set, CODE)
ALL = MUTABLE + (tuple, frozenset, str, bytes) + FROZENDICT + SLICE
is_interned = getattr(sys, "_is_interned", lambda text: None)

CLASSES = {}
VALUES = []


def class_of(value):
    if value not in CLASSES:
        CLASSES[value] = len(VALUES)
        VALUES.append(value)
    return CLASSES[value]


def bits(*floats):
    return struct.pack("<%dd" % len(floats), *floats)


def scalar(x):
    """The value of an object that holds no others; None if it may hold some."""
    if isinstance(x, float):
        return ("float", bits(x), repr(x))
    if isinstance(x, complex):
        return ("complex", bits(x.real, x.imag), repr(x))
    if isinstance(x, str):
        return ("str", x, "interned" if is_interned(x) else "")
    if isinstance(x, NUMBERS + (bytes,)):
        return (type(x).__name__, x)
    return None


def children(x):
    """What an object holds, each with its name."""
    if isinstance(x, CODE):
        return [(name, getattr(x, name)) for name in FIELDS]
    if isinstance(x, (dict,) + FROZENDICT):
        return [(n, part) for n, pair in enumerate(x.items()) for part in pair]
    if isinstance(x, SLICE):
        return [("start", x.start), ("stop", x.stop), ("step", x.step)]
    return [] if isinstance(x, (str, bytes) + NUMBERS) else list(enumerate(x))


class Model:
    """A dump's objects, as classes."""

    def __init__(self, root, with_identity):
        self.alive = []
        self.classes = {}  # id: class
        self.numbers = {}  # id of an object with identity: its number
        self.held = []  # by number: place, and the value
        self.visit(root, with_identity)
        self.root = self.classes[id(root)]
        self.counts = {}  # class: how many objects
        for label in self.classes.values():
            self.counts[label] = self.counts.get(label, 0) + 1

    def visit(self, root, with_identity):
        # An object, its place, and what it holds once that has been visited.
        todo = [(root, "top", None)]
        begun = set()
        while todo:
            x, where, parts = todo.pop()
            if parts is not None:
                value = self.value(x, parts)
                if id(x) in self.numbers:
                    self.held[self.numbers[id(x)]] = (where, value)
                else:
                    self.classes[id(x)] = class_of(value)
                continue
            self.alive.append(x)
            if id(x) in self.classes:
                continue
            # A tuple that holds itself has identity too: its class cannot be made of itself.
            if isinstance(x, with_identity) or id(x) in begun:
                self.numbers[id(x)] = len(self.held)
                self.classes[id(x)] = class_of(("object", type(x).__name__, len(self.held)))
                self.held.append(None)
            if id(x) not in begun:
                begun.add(id(x))
                named = children(x)
                todo.append((x, where, [child for _, child in named]))
                todo.extend((child, (where, name), None) for name, child in reversed(named))

    def value(self, x, parts):
        value = scalar(x)
        if value is not None:
            return value
        parts = [self.classes[id(part)] for part in parts]
        if isinstance(x, CODE):
            parts += [class_of(self.value_of_names(getattr(x, name))) for name in MADE_ANEW]
        if isinstance(x, (set, frozenset)):
            parts.sort()
        return (type(x).__name__, tuple(parts))

    @staticmethod
    def value_of_names(x):
        return scalar(x) or ("tuple", tuple(class_of(scalar(name)) for name in x))


def spell(where):
    names = []
    while isinstance(where, tuple):
        where, name = where
        names.append(str(name))
    return " > ".join([where] + names[::-1])


def explain(left, right, where):
    """Follows the first difference down to where it is."""
    while True:
        a, b = left, right
        if not (a[0] == b[0] and len(a) == 2 and isinstance(a[1], tuple) and isinstance(b[1], tuple)):
            break
        if len(a[1]) != len(b[1]):
            return "%s: %s of %d became one of %d" % (spell(where), a[0], len(a[1]), len(b[1]))
        at = [n for n, pair in enumerate(zip(a[1], b[1])) if pair[0] != pair[1]][0]
        where = (where, (FIELDS + MADE_ANEW)[at] if a[0] == "code" else at)
        left, right = VALUES[a[1][at]], VALUES[b[1][at]]
    return "%s: %.200r became %.200r" % (spell(where), left, right)


def difference(left, right, mode):
    for (where, a), (_, b) in zip(left.held, right.held):
        if a != b:
            return explain(a, b, where)
    if left.root != right.root:
        return explain(VALUES[left.root], VALUES[right.root], "top")
    if len(left.held) != len(right.held):
        return "%d objects with identity became %d" % (len(left.held), len(right.held))
    if mode == "merged":
        for label, count in right.counts.items():
            if count > left.counts[label]:
                return "%d objects %.200r became %d" % (left.counts[label], VALUES[label], count)
    return None


def load(path):
    with open(path, "rb") as file:
        dump = file.read()
    if path.endswith(".pyc"):
        dump = dump[16 if sys.version_info >= (3, 7) else 12:]
    return marshal.loads(dump)


def answer(mode, left, right):
    if mode == "refuse":
        for path in (left, right):
            try:
                load(path)
            except Exception:
                continue
            return "is not refused"
        return "same"
    with_identity = ALL if mode == "exact" else MUTABLE
    try:
        # One after the other: what one load interns must not be found by the next.
        model = Model(load(left), with_identity)
        model.alive = None
        why = difference(model, Model(load(right), with_identity), mode)
    except Exception as error:
        return "%s: %s" % (type(error).__name__, error)
    return why or "same"


for line in sys.stdin:
    print(answer(*line.rstrip("\n").split("\t")).encode("ascii", "backslashreplace").decode())
    sys.stdout.flush()
