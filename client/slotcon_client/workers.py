"""Work in threads that nobody waits for once it is to end."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

_LEAVING_SECONDS = 5.0  # that work under way has, after an error elsewhere
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def each_done(
    work: Callable[[_Item], _Result], items: Iterable[_Item], threads: int
) -> Iterator[tuple[_Item, _Result]]:
    """Calls a function of each item in several threads; yields results as they come.

    The first error ends it. After Ctrl-C, nothing is waited for: a thread may be held
    up by a server for minutes.

    Args:
        work: Function of an item.
        items: Iterable; it is asked for the next one when a thread is free.
        threads: Their number.

    Yields:
        Pairs of an item and its result.

    Raises:
        Exception: What `work` or `items` raised.

    Example:
        >>> sorted(each_done(lambda x: x * x, range(4), threads=2))
        [(0, 0), (1, 1), (2, 4), (3, 9)]
    """
    todo, guard, stop = iter(items), threading.Lock(), threading.Event()
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run():
        while not stop.is_set():
            try:
                with guard:
                    item = next(todo)
                ended.put((item, work(item), None))
            except StopIteration:
                break
            except BaseException as error:  # noqa: BLE001  raised where it is waited for
                ended.put((None, None, error))
                break
        ended.put(None)

    pool = [threading.Thread(target=run, daemon=True) for _ in range(threads)]
    for thread in pool:
        thread.start()
    left = threads
    try:
        while left:
            result = ended.get()
            if result is None:
                left -= 1
                continue
            item, found, error = result
            if error is not None:
                raise error
            yield item, found
    except Exception:
        stop.set()
        end = time.monotonic() + _LEAVING_SECONDS
        for thread in pool:
            thread.join(max(0.0, end - time.monotonic()))
        raise
    finally:
        stop.set()
