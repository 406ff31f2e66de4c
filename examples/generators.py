"""Generators, comprehensions, coroutines, asynchronous generators."""

import asyncio


def countdown(n):
    while n:
        received = yield n
        n = received if received is not None else n - 1
    return "lift-off"


def flight(n):
    result = yield from countdown(n)
    yield result


def pairs(rows):
    squares = {x: x * x for row in rows for x in row if x}
    signs = {x < 0 for x in squares}
    return [(x, y) for x, y in squares.items()], signs, sum(x for x in squares)


async def ticks(n):
    for tick in range(n):
        await asyncio.sleep(0)
        yield tick


async def gather(n):
    async with asyncio.Lock():
        total = 0
        async for tick in ticks(n):
            total += tick
    return total, [tick async for tick in ticks(n) if tick % 2]
