"""What the tests of compiled kernels need first."""

from kernels.native import library


def is_built() -> bool:
    """Whether the library can be used here, compiled now if it was not."""
    if library.library() is None:
        library.build()
        library.library.cache_clear()
    return library.library() is not None
