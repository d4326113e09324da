"""Work done on several threads, handed over in its order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

AHEAD = 8  # items a thread: so that threads do not wait while the caller uses what came

T, R = TypeVar("T"), TypeVar("R")


def in_order(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Yield `function` of each item, in the order of the items.

    It runs on `threads` threads, for no more than AHEAD * `threads` + 1 items ahead of the one
    yielded. The items are taken on the caller's thread. An exception comes out in its turn; what
    has not begun then is not begun.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
