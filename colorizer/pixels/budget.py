"""Bounds the pixels that one process works on at a time, so that many large pictures cannot fill the memory."""

import contextlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator

import numpy as np

from colorizer.config import MAX_PIXELS_IN_WORK, MAX_SECONDS_TO_WAIT
from colorizer.errors import ImageError

_turn = threading.Condition()
_queue: deque[object] = deque()  # It holds one ticket for each thread that waits, in the order of their turns.
_in_work = 0
_thread = threading.local()


@contextlib.contextmanager
def pixels_in_work(count: int) -> Iterator[None]:
    """Hold `count` pixels of the process's `MAX_PIXELS_IN_WORK` for the length of the block; wait until they are free.

    Threads get their turn in the order in which they came. A block inside another one of the same thread belongs to
    the outer block and takes nothing more, so a thread never waits for itself.

    Args:
        count: height times width of the picture.

    Raises:
        ImageError: other pictures took longer than `MAX_SECONDS_TO_WAIT`.
    """
    global _in_work
    if getattr(_thread, "works", False):
        yield
        return
    count, ticket = min(count, MAX_PIXELS_IN_WORK), object()

    def may_start() -> bool:
        return _queue[0] is ticket and _in_work + count <= MAX_PIXELS_IN_WORK

    with _turn:
        _queue.append(ticket)
        try:
            if not _turn.wait_for(may_start, MAX_SECONDS_TO_WAIT):
                raise ImageError("Other large pictures are being worked on. Try again in a minute.")
            _in_work += count
        finally:
            _queue.remove(ticket)
            _turn.notify_all()
    _thread.works = True
    try:
        yield
    finally:
        _thread.works = False
        with _turn:
            _in_work -= count
            _turn.notify_all()


class PictureCache:
    """Keeps the decoded pictures that were used last; it is safe to use from several threads."""

    def __init__(self, max_pixels: int) -> None:
        """Keep as many pictures as have at most `max_pixels` pixels together."""
        self._max_pixels = max_pixels
        self._pictures: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the picture kept under `key`, an array (H, W, C); decode and keep it if it is not there."""
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
                return self._pictures[key]
        picture = decode()
        with self._lock:
            self._pictures[key] = picture
            while sum(kept.shape[0] * kept.shape[1] for kept in self._pictures.values()) > self._max_pixels:
                self._pictures.popitem(last=False)
        return picture
