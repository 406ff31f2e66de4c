"""Positional-only parameters and assignment expressions: syntax of Python 3.8."""


def clamp(value, low=0, high=1, /):
    return max(low, min(value, high))


def describe(kind, /, label, *, unit="m", **facts):
    """Take a fact that is named kind, too: the parameter cannot be named."""
    return f"{kind} {label} {facts.get('kind')} [{unit}]"


def chunks(read, /, size=4096):
    while chunk := read(size):
        yield chunk


pair = lambda first, second, /: (first, second)
