"""Both halves of a family in this process, beside its whole model."""

from collections.abc import Callable
from functools import cache

import pytest

from tests.families import make
from tests.videos.halves import Halves

MakeHalves = Callable[[str], Halves]


@pytest.fixture(scope="session")
def halves(tmp_path_factory: pytest.TempPathFactory) -> MakeHalves:
    """Makes a family's halves, once."""

    @cache
    def get(family: str) -> Halves:
        return Halves(make(family, tmp_path_factory.mktemp(family) / "model"))

    return get
