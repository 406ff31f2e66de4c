"""Slices with constant bounds: instructions before 3.14, constants from 3.14 on."""


def halves(items):
    middle = len(items) // 2
    return items[:middle], items[middle:]


def corners(items):
    return items[1:2], items[:1], items[-1:], items[1:-1]


def steps(items):
    return items[::2], items[1::2], items[::-1], items[:]


def blocks(matrix):
    return matrix[0:2, 0:2], matrix[..., ::2], matrix[1:2]


def by_letter(index):
    return index["a":"n"]


def rotate(items):
    items[1:], items[:1] = items[:-1], items[-1:]
    del items[10:20]
    return items
