"""Constants at the borders of their encodings, and neighbours that only look alike."""

INTEGERS = (-1, 0, 1, 255, 256, 2**31 - 1, 2**31, -2**31, -2**31 - 1, 2**70, -2**70)
BOOLEANS = (True, False, 1, 0)

FLOATS = (0.0, -0.0, 0.1, 1.0, 1e300, 5e-324)
COMPLEX = (0j, 1j, -1j, 1.5e300j)

BYTES = (b"", b"s", b"spam", b"\x00\xff")
TEXTS = (
    "",
    "s",
    "spam",  # an identifier: interned
    "spam and eggs",  # not an identifier
    "é",  # Latin-1
    "naïve",
    "Ελλάδα",
    "🐍",  # above U+FFFF
    "\ud800",  # a surrogate without its pair
    "nul \x00 inside",
)

NESTED = (("x", 1), (("x", 1), ("y", 2)), (("x", 1), ("y", 2)), ())
SINGLETONS = (None, True, False, ...)


def is_vowel(letter):
    return letter in {"a", "e", "i", "o", "u"}


def is_small(number):
    return number in {0, 1, 2, 3} or number in (0, 1, 2, 3)


def later():
    ...
