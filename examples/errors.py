"""Every shape of try and with: from 3.11 on they fill exception tables."""

from contextlib import contextmanager, suppress


class Unreadable(ValueError):
    pass


def parse(text):
    try:
        number = int(text)
    except ValueError as error:
        raise Unreadable(text) from error
    except (TypeError, OverflowError):
        return None
    else:
        return number
    finally:
        print("parsed", text)


def first(texts):
    for text in texts:
        try:
            return parse(text)
        except Unreadable:
            continue
    return None


@contextmanager
def opened(name):
    print("open", name)
    try:
        yield name
    finally:
        print("close", name)


def both(left, right):
    with opened(left) as a, opened(right) as b, suppress(KeyError):
        return a + b
