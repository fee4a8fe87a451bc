"""The bound on what waits."""

import contextlib

import pytest

from rpc.errors import Overloaded
from vision_server.admission import Admission


def test_the_queue_is_bounded_in_images() -> None:
    """One image over the bound is refused with a time to try again; a place given back can be taken."""
    admission = Admission(max_images=2, max_bytes=1000)
    with contextlib.ExitStack() as held:
        held.enter_context(admission.place(1))
        with admission.place(1), pytest.raises(Overloaded) as caught, admission.place(1):
            pass
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s >= 1
        with admission.place(1):
            pass


def test_the_queue_is_bounded_in_bytes() -> None:
    """Images that together are over the bytes are refused; a single one never is."""
    admission = Admission(max_images=10, max_bytes=100)
    with admission.place(150), pytest.raises(Overloaded), admission.place(1):
        pass
    with admission.place(60), admission.place(40):
        pass


def test_what_would_wait_too_long_is_refused() -> None:
    """With images that take a second each, the fourth would wait for three; nothing is known before the first."""
    admission = Admission(max_images=100, max_bytes=1000, max_wait_s=2.5)
    for _ in range(100):
        admission.learn(1.0)
    with contextlib.ExitStack() as held:
        for _ in range(3):
            held.enter_context(admission.place(1))
        with pytest.raises(Overloaded), admission.place(1):
            pass


def test_a_place_is_given_back_after_a_failure() -> None:
    """A failed image leaves no place taken."""
    admission = Admission(max_images=1, max_bytes=100)
    for _ in range(3):
        with contextlib.suppress(ValueError), admission.place(1):
            raise ValueError


def test_the_wait_grows_with_the_queue() -> None:
    """The longer the queue and the slower the model, the later the caller is told to come back."""
    admission = Admission(max_images=100, max_bytes=1000)
    with contextlib.ExitStack() as held:
        for _ in range(50):
            held.enter_context(admission.place(1))
        short = admission.wait_s
        for _ in range(20):
            admission.learn(2.0)
        assert admission.wait_s > 10 * short / 2 > 1
