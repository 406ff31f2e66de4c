"""Free and cell variables, and every way to declare a parameter."""


def counter(start=0, *, step=1):
    """Return two functions that share one number."""
    count = start

    def advance():
        nonlocal count
        count += step
        return count

    def peek():
        return count

    return advance, peek


def compose(*functions):
    """Return the function that applies functions from the last to the first."""

    def composed(*args, **kwargs):
        result = functions[-1](*args, **kwargs)
        for function in reversed(functions[:-1]):
            result = function(result)
        return result

    return composed


def power(base, exponent=2, *rest, modulus=None, **options):
    return (lambda x: pow(x, exponent, modulus))(base), rest, options


def adder(x):
    return lambda y: lambda z: x + y + z


increment = adder(0)(1)
