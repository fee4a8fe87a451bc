"""Answers of the engine around vLLM, asked directly: run by vLLM's own Python.

`python -m tests.vllm.answered FILE`. FILE holds JSON: the model's directory, an adapter's, and the questions, each with
its tokens, its images' places, grids and embeddings. Printed are tokens and reused tokens of each question's answers
without the adapter, with it, and without it again.
"""

import json
import queue
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from lm_server.prompt import ImageRef, ImageSpan, Prompt, rotary_positions
from lm_server.runner import ImageEmbedding
from lm_server.settings import LanguageSettings
from lm_server.tickets import Event, Failed, Finished, Work
from lm_server.vllm_client import require_vllm
from lm_server.vllm_engine import VllmEngine
from lm_server.vllm_half import examine
from lm_server.vllm_inputs import VllmAdapter

MAX_TOKENS = 8
LORA = '{"enable_lora": true, "max_lora_rank": 8}'


def main(file: str) -> None:
    """Asks and prints."""
    asked = json.loads(Path(file).read_text())
    where = {"model": asked["model"], "listen": "h:1", "cache": "memory://", "vision": ("h:2",)}
    half = examine(LanguageSettings(**where, engine="vllm", vllm_args=LORA, kv_bytes=1 << 26, max_running=8))
    require_vllm(threads=1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(asked["model"])
    engine = VllmEngine(half, tokenizer, end_tokens=half.description.eos_token_ids, max_questions=8)
    engine.start()
    try:
        adapter = VllmAdapter(1, "tuned", asked["adapter"])
        told = [[_answer(engine, question, held) for held in (None, adapter, None)] for question in asked["questions"]]
    finally:
        engine.stop()
    print(json.dumps(told))


def _answer(engine: VllmEngine, question: dict[str, Any], adapter: VllmAdapter | None) -> dict[str, Any]:
    spans = [
        ImageSpan(ImageRef(name, tuple(grid)), start, len(rows))  # type: ignore[arg-type]
        for name, grid, start, rows in question["images"]
    ]
    embeddings = {name: ImageEmbedding(torch.tensor(rows), ()) for name, _, _, rows in question["images"]}
    tokens = tuple(question["tokens"])
    positions, after = rotary_positions(len(tokens), spans, 2)
    prompt = Prompt(tokens, positions, after, tuple(spans), ())
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    work = Work(prompt, (), MAX_TOKENS, embeddings=embeddings, tenant="t", fingerprint="f", adapter=adapter)
    [ticket] = engine.submit([work], [events.put])
    while True:
        event = events.get()
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Finished):
            return {"tokens": ticket.sequence.output, "cached": event.cached_tokens}


if __name__ == "__main__":
    main(sys.argv[1])
