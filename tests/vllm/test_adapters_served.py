"""LoRA adapters over the wire, with vLLM as the engine."""

from pathlib import Path

import pytest

from tests.deployment import deploy, redis_server
from tests.end_to_end.asking import MAX_TOKENS, chat
from tests.families import make
from tests.lm_server.tuning import save_adapter, tuned
from tests.lm_server.workshop import Workshop, ask
from tests.vllm.conftest import FLAGS, START_S


@pytest.mark.timeout(START_S)
def test_adapters_are_chosen_by_the_model_of_a_request(vllm_python: Path, tmp_path: Path) -> None:
    """One from the start and one loaded later: each answers as PEFT on the whole model, the model as without them."""
    model = make("qwen2_vl", tmp_path / "model", wide_heads=True)
    shop = Workshop(model)
    for name, seed in (("first", 1), ("second", 2)):
        save_adapter(shop.oracle, tmp_path / "adapters" / name, seed=seed)
    adapters = ("--lora", f"first={tmp_path / 'adapters' / 'first'}", "--lora-dirs", str(tmp_path / "adapters"))
    with (
        redis_server(tmp_path / "store") as store,
        deploy(
            model, store.url, tmp_path, language=(*FLAGS, *adapters), language_python=vllm_python, start_s=START_S
        ) as deployed,
    ):
        body = {"lora_name": "second", "lora_path": str(tmp_path / "adapters" / "second")}
        loaded = deployed.http.post("/v1/load_lora_adapter", json=body)
        assert loaded.status_code == 200, loaded.text
        for case in (ask("What is this thing, in a word?", 1), ask("Hello there, how are you?")):
            right = {name: tuned(shop.oracle, tmp_path / "adapters" / name) for name in ("first", "second")}
            expected = {name: each.expected(case, MAX_TOKENS).text for name, each in right.items()}
            expected["model"] = shop.expected(case, MAX_TOKENS).text
            assert len(set(expected.values())) > 1
            for _ in range(2):
                assert {name: chat(deployed.http, case, name).text for name in expected} == expected
