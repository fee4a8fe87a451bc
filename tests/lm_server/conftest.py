"""One tiny checkpoint of each family for the whole run."""

from pathlib import Path

import pytest

from tests.families import FAMILIES, make
from tests.lm_server.workshop import Workshop


@pytest.fixture(scope="session")
def family_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of every family."""
    root = tmp_path_factory.mktemp("families")
    return {family: make(family, root / family) for family in FAMILIES}


@pytest.fixture(scope="session", params=FAMILIES)
def workshop(request: pytest.FixtureRequest, family_dirs: dict[str, Path]) -> Workshop:
    """The language half and the oracle of each family in turn."""
    return Workshop(family_dirs[request.param])


@pytest.fixture(scope="session")
def one_workshop(family_dirs: dict[str, Path]) -> Workshop:
    """The language half and the oracle of Qwen2-VL, where families make no difference."""
    return Workshop(family_dirs["qwen2_vl"])
