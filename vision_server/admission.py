"""Bounds what waits to be encoded, in images and in bytes."""

from collections.abc import Iterator
from contextlib import contextmanager

from rpc.errors import Overloaded
from vision_server.metrics import WAITING

_SMOOTHING = 0.2


class Admission:
    """Counts the images that wait; refuses beyond the bounds, telling when to try again.

    With `max_wait_s`, an image is refused as well that would wait longer, judging by what the last ones took.
    """

    def __init__(self, max_images: int, max_bytes: int, max_wait_s: float | None = None) -> None:
        self._max_images = max_images
        self._max_bytes = max_bytes
        self._max_wait_s = max_wait_s
        self._images = 0
        self._bytes = 0
        self._seconds_an_image = 0.1

    @contextmanager
    def place(self, image_bytes: int) -> Iterator[None]:
        """Holds a place for one image. Raises `Overloaded` where there is none."""
        is_late = self._max_wait_s is not None and self._images * self._seconds_an_image > self._max_wait_s
        is_full = self._images >= self._max_images or (self._images and self._bytes + image_bytes > self._max_bytes)
        if is_full or is_late:
            raise Overloaded("too many images are waiting to be encoded", retry_after_s=self.wait_s)
        self._images += 1
        self._bytes += image_bytes
        WAITING.set(self._images)
        try:
            yield
        finally:
            self._images -= 1
            self._bytes -= image_bytes
            WAITING.set(self._images)

    @property
    def wait_s(self) -> float:
        """Seconds until about half of what waits now will be done; at least one."""
        return max(1.0, self._images * self._seconds_an_image / 2)

    def learn(self, seconds: float) -> None:
        """Takes the seconds that encoding one image took into the estimate."""
        self._seconds_an_image += _SMOOTHING * (seconds - self._seconds_an_image)
