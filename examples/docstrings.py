"""Two functions with one docstring, and two with one each."""


def double(number):
    """Return a multiple of a number."""
    return 2.0 * number


def triple(number):
    """Return a multiple of a number."""
    return 3.0 * number


def first(items):
    """Return the first item."""
    return items[0]


def last(items):
    """Return the last item."""
    return items[-1]


class Pair:
    """Two items."""

    def swap(self):
        """Not written yet."""

    def copy(self):
        """Not written yet."""
