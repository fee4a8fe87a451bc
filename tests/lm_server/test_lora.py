"""The engine with adapters against PEFT on the whole model: same tokens, whatever shares the batch with them."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module

from lm_server.adapters import Shape, read_adapter
from lm_server.lora import Adapter, Linear, StepAdapters
from lm_server.runner import ModelRunner
from lm_server.segments import Block
from lm_server.steps import Logits, prompt_run
from lm_server.tickets import Delta, sequence_of
from rpc.errors import InvalidArgument, NotFound
from tests.families.oracle import load
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


def test_choices_are_scored_with_the_adapter(
    workshop: Workshop, directories: Mapping[str, Path], whole: Mapping[str, Tuned]
) -> None:
    """The log-probabilities of choices, of one token and of several, are those of PEFT's whole model."""
    case = ask("What is this?", 1, choices=("yes", "no", "a photograph of two dogs"))
    with workshop.engine() as bench:
        made = registry(bench)
        for name, directory in directories.items():
            [told] = bench.submit([work(workshop, case, adapter(made, name, directory), TOKENS)])
            assert told.end().logprobs == pytest.approx(whole[name].logprobs(case), rel=1e-5, abs=1e-4)


def test_tiny_steps_and_preemption_change_no_token(
    workshop: Workshop, directories: Mapping[str, Path], whole: Mapping[str, Tuned]
) -> None:
    """Prompts cut into chunks of a few rows, and questions sent back for want of room, keep their adapters."""
    room = max(len(workshop.prompt(case)) for case in CASES) + 30
    with workshop.engine(max_rows=7, max_running=5, kv_tokens=room, growth_tokens=0) as bench:
        made = registry(bench)
        models = {name: adapter(made, name, directory) for name, directory in directories.items()}
        asked = [(name, case) for case in CASES[:3] for name in models]
        told_all = bench.submit([work(workshop, case, models[name], TOKENS) for name, case in asked])
        for (name, case), told in zip(asked, told_all, strict=True):
            told.end()
            assert told.tokens == whole[name].expected(case, TOKENS).tokens
        assert bench.scheduler.num_preempted > 0


@pytest.fixture(scope="module")
def pair(one_workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Two adapters of Qwen2-VL, where families make no difference."""
    root = tmp_path_factory.mktemp("pair")
    return {str(seed): save_adapter(one_workshop.oracle, root / str(seed), seed=seed) for seed in (1, 2)}


def test_running_answers_keep_the_adapter_they_began_with(one_workshop: Workshop, pair: Mapping[str, Path]) -> None:
    """Answers that run or wait while their adapter is replaced, then unloaded, end as they began."""
    case, length = MIXED[0], 40
    first, second = (tuned(one_workshop.oracle, pair[seed]) for seed in ("1", "2"))
    with one_workshop.engine(max_running=1, max_rows=64) as bench:
        made = registry(bench)
        old = adapter(made, "a", pair["1"])
        running, waiting = bench.submit([work(one_workshop, each, old, length) for each in (case, MIXED[1])])
        assert isinstance(running.next(), Delta)
        new = adapter(made, "a", pair["2"])
        [late] = bench.submit([work(one_workshop, case, new, length)])
        made.unload("a")
        with pytest.raises(NotFound):
            made.find("a")
        for told, oracle, asked in ((running, first, case), (waiting, first, MIXED[1]), (late, second, case)):
            told.end()
            assert told.tokens == oracle.expected(asked, length).tokens


def test_prefixes_are_shared_within_one_loading_alone(one_workshop: Workshop, pair: Mapping[str, Path]) -> None:
    """Neither the plain model, nor another adapter, nor the same one loaded again reuses what an adapter computed."""
    case = ask("What is this?", 1)
    with one_workshop.engine() as bench:
        made = registry(bench)
        models = [None, adapter(made, "a", pair["1"]), adapter(made, "b", pair["1"])]

        def cached(model: Adapter | None) -> int:
            [told] = bench.submit([work(one_workshop, case, model, 1)])
            return told.end().cached_tokens

        assert [cached(model) for model in models] == [0, 0, 0]
        assert all(cached(model) > 0 for model in models)
        assert cached(adapter(made, "a", pair["1"])) == 0


@pytest.mark.parametrize("tiers", [{}, {"host_tokens": 10_000}])
def test_an_unloaded_adapter_leaves_nothing_behind(
    one_workshop: Workshop, pair: Mapping[str, Path], tiers: Mapping[str, int]
) -> None:
    """Segments, their copies in the tiers and drafts go with an adapter, those of answers still under way too."""
    cases = [ask(text, number) for number in (1, 2, 3) for text in ("What is this?", "What is this, then?")]
    room = max(len(one_workshop.prompt(case)) for case in cases) + 60
    with one_workshop.engine(kv_tokens=room if tiers else 10_000, draft_tokens=4, **tiers) as bench:
        made = registry(bench)
        model = adapter(made, "a", pair["1"])
        for case in cases:
            bench.submit([work(one_workshop, case, model, 4)])[0].end()
        [running] = bench.submit([work(one_workshop, cases[0], model, 30)])
        assert isinstance(running.next(), Delta)
        made.unload("a")
        running.end()
        [last] = bench.submit([work(one_workshop, ask("Hi."), None, 1)])
        last.end()
        bench.engine.stop()
        ledger, book = bench.scheduler.ledger, bench.engine._drafts
        assert ledger.used_tokens == 0
        assert ledger.tiers is None or ledger.tiers.used_host_tokens == 0
        assert book is not None
        assert (len(book), book.num_bytes) == (0, 0)


def test_a_step_without_adapters_does_nothing(one_workshop: Workshop) -> None:
    """Rows of the plain model alone have no groups, so that no product is touched."""
    adapters = StepAdapters()
    sequence = sequence_of(one_workshop.work(ask("Hi."), max_tokens=1))
    run = prompt_run(sequence, Block(0, 4), (), 0, 0, 4, Logits.NONE)
    adapters.begin([run], "cpu")
    product = torch.ones(4, 8)
    adapters.add(product, torch.ones(4, 8), (Linear("any", Shape(8, 8)),))
    adapters.keep([slice(3, 4)])
    assert adapters.added(torch.ones(1, 8), Linear("any", Shape(8, 8))) is None
    assert torch.equal(product, torch.ones(4, 8))


@pytest.mark.parametrize(
    ("family", "config", "named"),
    [
        ("qwen2_5_vl", {"target_modules": ["gate_proj"], "exclude_modules": None}, "vision tower"),
        ("qwen2_vl", {"target_modules": ["q_proj", "qkv"], "exclude_modules": None}, "vision tower"),
        (
            "qwen3_vl_moe",
            {"target_modules": ["q_proj"], "target_parameters": ["experts.down_proj"]},
            "target_parameters",
        ),
        ("qwen2_vl", {"target_modules": ["q_proj"], "use_dora": True}, "use_dora"),
        ("qwen2_vl", {"target_modules": ["q_proj"], "lora_bias": True}, "lora_bias"),
        ("qwen2_vl", {"target_modules": ["q_proj", "embed_tokens"]}, "token table"),
        ("qwen2_vl", {"target_modules": ["q_proj"], "trainable_token_indices": [1]}, "trainable_token_indices"),
        ("qwen2_vl", {"target_modules": ["q_proj"], "modules_to_save": ["norm"]}, "modules_to_save"),
    ],
)
def test_what_peft_can_save_and_is_not_served_is_refused(
    family_dirs: Mapping[str, Path], tmp_path: Path, family: str, config: Mapping[str, Any], named: str
) -> None:
    """Adapters of kinds that are not served, as PEFT itself saves them, are refused by what they need."""
    oracle = load(family_dirs[family])
    directory = save_adapter(oracle, tmp_path, **config)
    linears = {
        name: Shape(module.out_features, module.in_features)
        for name, module in oracle.model.named_modules()
        if isinstance(module, torch.nn.Linear) and "visual" not in name
    }
    with pytest.raises(InvalidArgument, match=named):
        read_adapter(directory, linears, 1 << 24)


def test_a_spread_model_has_nothing_to_adapt(one_workshop: Workshop) -> None:
    """Where accelerate has hooks on a module, no adapter is taken for any layer."""
    model = copy.deepcopy(one_workshop.oracle.model)
    add_hook_to_module(model.lm_head, ModelHook())
    assert ModelRunner(model, 1 << 20).linears == ()
