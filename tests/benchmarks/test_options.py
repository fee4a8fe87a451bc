"""Options are measured beside the exact engine, whatever they do to its answers."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.checkpoints import RECIPES, making
from benchmarks.errors import UnknownName
from benchmarks.options import __main__ as options
from benchmarks.options import int8
from benchmarks.options.table import EXACT, OPTIONS, check_names, markdown, open_option, rows
from benchmarks.options.workers import DRAFT_TOKENS, Bfloat16Entries, Drafts, Float16Entries, Int8Language
from benchmarks.results import Report, SystemResult, WorkloadResult
from benchmarks.systems.system import CPU, Setup
from kernels.linear import SILU, PlainLinear
from lm_server import layers
from lm_server.main import DRAFT_BYTES

pytestmark = pytest.mark.alone

needs_int8 = pytest.mark.skipif(bool(int8.lacking()), reason="int8 products are not here")


@needs_int8
def test_int8_products_are_near_the_exact_ones() -> None:
    """Within a fiftieth of the outputs' spread; bias, activation, residual and factor included."""
    torch.manual_seed(0)
    plain = nn.Linear(256, 64)
    rows_, other = torch.randn(15, 256), torch.randn(15, 64)
    exact = PlainLinear(plain.weight, plain.bias, SILU)
    rounded = int8.Int8Linear(plain.weight, plain.bias, SILU)
    for mine, theirs in (
        (rounded(rows_), exact(rows_)),
        (rounded.plus(rows_, other), exact.plus(rows_, other)),
        (rounded.times(rows_, other), exact.times(rows_, other)),
    ):
        assert ((mine - theirs).pow(2).mean().sqrt() < 0.02 * theirs.std()).item()


@needs_int8
def test_int8_rows_do_not_depend_on_each_other() -> None:
    """A row's result is the same alone and beside a row of much larger values; zeros stay finite."""
    torch.manual_seed(0)
    layer = int8.Int8Linear(torch.randn(32, 64), None)
    row = torch.randn(1, 64)
    beside = layer(torch.cat([row, 1000 * torch.randn(1, 64), torch.zeros(1, 64)]))
    assert torch.allclose(beside[:1], layer(row), atol=1e-4)
    assert beside.isfinite().all()


@needs_int8
def test_the_engine_steps_through_int8_layers(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its layers are made of them, the output layer is one, and the engine's own way of making them is tried."""
    monkeypatch.setattr(layers, "make_linear", layers.make_linear)
    worker = Int8Language()
    worker.start(Setup(str(tiny_checkpoint), kv_tokens=256, cores=(0,)))
    worker._engine.stop()
    model = worker._half.model
    assert isinstance(model.lm_head, int8.Int8Linear)
    for layer in model.model.language_model.layers:
        assert sum(isinstance(module, int8.Int8Linear) for module in layer.modules()) == 5


def test_the_engine_drafts(tiny_checkpoint: Path) -> None:
    """Its book is there, as large as the worker's own default, for as many tokens as the table says."""
    worker = Drafts()
    worker.start(Setup(str(tiny_checkpoint), kv_tokens=256, cores=(0,)))
    worker._engine.stop()
    book = worker._engine._drafts
    assert book is not None
    assert (book.max_tokens, book.max_bytes) == (DRAFT_TOKENS, DRAFT_BYTES)
    assert str(DRAFT_TOKENS) in OPTIONS["drafts"].says


def test_rounded_entries_have_the_dtype_that_they_are_kept_in() -> None:
    """What the engine sees is what an entry would hold."""
    tensor = torch.randn(2, 4)
    assert torch.equal(Bfloat16Entries()._entry(tensor), tensor.bfloat16())
    assert torch.equal(Float16Entries()._entry(tensor), tensor.half())


def test_an_unknown_option_is_refused_by_name() -> None:
    """The error says which there are; the exact engine is opened under its own name."""
    with pytest.raises(UnknownName, match="language-int8"):
        check_names(["nothing"])
    assert open_option(EXACT, CPU).name == EXACT
    assert all(open_option(name, CPU).name == name for name in OPTIONS)


def test_the_table_tells_speed_agreement_and_bytes() -> None:
    """Times the exact engine's speed, equal answers, words before the first difference, and an entry's size."""
    systems = {
        EXACT: SystemResult([2.0]),
        "entries-bf16": SystemResult([1.0], equal=3, compared=4, agreeing_words=50, words=64),
    }
    result = WorkloadResult("W1", 1, 4, 576, systems=systems)
    exact, option = rows(result, RECIPES["qwen2-vl"])
    assert exact[2:5] == ("2.000", "1.00", "exact")
    assert option[2:6] == ("1.000", "2.00", "3/4", "12.5 of 16.0")
    assert (exact[-1], option[-1]) == (str(576 * 768 * 4 >> 10), str(576 * 768 * 2 >> 10))
    text = markdown(
        [Report("options", {}, "a command", "qwen2-vl", 1, [result])], RECIPES, {"language-int8": "no VNNI"}
    )
    assert "`language-int8` was left out: no VNNI" in text


def test_options_run_beside_the_exact_engine(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real engines on a tiny checkpoint: half-precision entries hardly change an answer, and all of it is written."""
    monkeypatch.setattr(options, "make", lambda name: making.make(name, tiny_checkpoint.parent))
    monkeypatch.setattr(options, "RANDOM_WORKLOADS", ("W1s-again",))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    names = ["entries-fp16", "drafts", *(["language-int8"] if not int8.lacking() else [])]
    arguments = ["--recipes", "qwen2-vl-tiny", "--tiny", "--options", ",".join(names), "--repeats", "1"]
    assert options.main([*arguments, "--out", str(tmp_path)]) == 0
    [found] = json.loads((tmp_path / "options.json").read_text())["options"]
    systems = found["workloads"][0]["systems"]
    assert list(systems) == [EXACT, *names]
    for name in names:
        assert systems[name]["compared"] == found["workloads"][0]["questions"]
        assert systems[name]["errors"] == 0
    assert systems["entries-fp16"]["agreeing_words"] > 0
    assert systems["drafts"]["equal"] == systems["drafts"]["compared"]
    assert (tmp_path / "options.md").exists()
