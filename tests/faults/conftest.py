"""One checkpoint and one album for every test of faults."""

from pathlib import Path

import pytest

from tests.families import make
from tests.faults.crowd import Album, make_album

NUM_PICTURES = 12


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2-VL checkpoint of random weights."""
    return make("qwen2_vl", tmp_path_factory.mktemp("faults") / "model")


@pytest.fixture(scope="session")
def album(model_dir: Path) -> Album:
    """Pictures that the whole model tells apart."""
    return make_album(model_dir, NUM_PICTURES)
