from pathlib import Path

import pytest

from tests import families


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory of the test's own: nothing is written where the user keeps things."""
    home = tmp_path / "cache-home"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


@pytest.fixture(params=families.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def whole(tmp_path: Path, family: str) -> Path:
    """A sound checkpoint of each family, in one file."""
    return families.make(family, tmp_path / "model")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A sound qwen2_5_vl (untied) checkpoint in one file."""
    return families.make("qwen2_5_vl", tmp_path / "model")
