"""A tiny checkpoint that the tests of a session share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.checkpoints import RECIPES, Recipe, make

TINY_NAME = "qwen2-vl-tiny"


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    return RECIPES[TINY_NAME]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(TINY_NAME, tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """Benchmarks set the number of torch's threads, which is the whole process's."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
