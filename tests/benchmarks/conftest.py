"""A tiny checkpoint that the tests of a session share."""

from pathlib import Path

import pytest

from benchmarks.checkpoints import RECIPES, Recipe, make

TINY_NAME = "qwen2-vl-tiny"


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    return RECIPES[TINY_NAME]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(TINY_NAME, tmp_path_factory.mktemp("checkpoints"))
