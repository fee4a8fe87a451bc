"""The engine with adapters against PEFT on the whole model: same tokens, whatever shares the batch with them."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from lm_server.tickets import Delta
from rpc.errors import NotFound
from tests.lm_server.tuning import ATTENTION, EVERY, Tuned, adapter, registry, save_adapter, tuned, work
from tests.lm_server.workshop import MIXED, Workshop, ask

TOKENS = 10
CASES = (MIXED[0], MIXED[1], MIXED[5], MIXED[7], MIXED[11])


@pytest.fixture(scope="module")
def directories(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Two adapters of each family; of a mixture of experts only the attention can have one."""
    root = tmp_path_factory.mktemp("adapters")
    moe = "Moe" in type(workshop.oracle.model).__name__
    first = {"target_modules": ATTENTION if moe else EVERY}
    second = {
        "target_modules": ["q_proj", "v_proj", "lm_head"],
        "r": 3,
        "use_rslora": True,
        "rank_pattern": {"layers.1.self_attn.q_proj": 6},
        "alpha_pattern": {"v_proj": 2.5},
    }
    return {
        "first": save_adapter(workshop.oracle, root / "first", seed=1, **first),
        "second": save_adapter(workshop.oracle, root / "second", seed=2, **second),
    }


@pytest.fixture(scope="module")
def whole(workshop: Workshop, directories: Mapping[str, Path]) -> Mapping[str, Tuned]:
    """The whole model with each of them."""
    return {name: tuned(workshop.oracle, directory) for name, directory in directories.items()}


def test_adapters_and_the_plain_model_in_one_batch_equal_peft(
    workshop: Workshop, directories: Mapping[str, Path], whole: Mapping[str, Tuned]
) -> None:
    """Questions to two adapters and to none, about the same images at once, get the tokens of PEFT's whole model."""
    with workshop.engine() as bench:
        made = registry(bench)
        models = {name: adapter(made, name, directory) for name, directory in directories.items()}
        asked = [(name, case) for case in CASES for name in ("first", "", "second")]
        told_all = bench.submit([work(workshop, case, models.get(name), TOKENS) for name, case in asked])
        answers: dict[str, list[tuple[int, ...]]] = {"": [], "first": [], "second": []}
        for (name, case), told in zip(asked, told_all, strict=True):
            told.end()
            oracle = whole[name] if name else workshop
            assert told.tokens == oracle.expected(case, TOKENS).tokens
            answers[name].append(told.tokens)
        # They are different models indeed.
        assert answers[""] != answers["first"] != answers["second"] != answers[""]
