"""Answers of the engine around vLLM, asked directly: run by vLLM's own Python, for `tests.vllm.asked`.

`python -m tests.vllm.answered FILE`. FILE holds JSON: the model's directory, vLLM's own options, an adapter's directory
or null, and the questions, each with its tokens, its images' places, grids, embeddings and DeepStack features. Printed
are the number of vLLM's workers, and tokens and reused tokens of each question's answers without the adapter, with it
where there is one, and without it again.
"""

import json
import queue
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import transformers

from lm_server.prompt import Prompt
from lm_server.runner import ImageEmbedding
from lm_server.settings import LanguageSettings
from lm_server.showing import ImageRef, ImageSpan
from lm_server.tickets import Event, Failed, Finished, Work
from lm_server.vllm_client import require_vllm
from lm_server.vllm_engine import VllmEngine
from lm_server.vllm_half import examine
from lm_server.vllm_inputs import VllmAdapter

MAX_TOKENS = 8


def main(file: str) -> None:
    """Asks and prints."""
    asked = json.loads(Path(file).read_text())
    where = {"model": asked["model"], "listen": "h:1", "cache": "memory://", "vision": ("h:2",)}
    how = {"engine": "vllm", "vllm_args": json.dumps(asked["options"]), "kv_bytes": 1 << 26, "max_running": 8}
    half = examine(LanguageSettings(**where, **how))
    require_vllm(threads=1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(asked["model"])
    engine = VllmEngine(half, tokenizer, end_tokens=half.description.eos_token_ids, max_questions=8)
    engine.start()
    try:
        adapters = [VllmAdapter(1, "tuned", asked["adapter"])] if asked["adapter"] else []
        order = (None, *adapters, None)
        answers = [[_answer(engine, question, held) for held in order] for question in asked["questions"]]
        workers = sum("Worker" in " ".join(child.cmdline()) for child in psutil.Process().children(recursive=True))
    finally:
        engine.stop()
    print(json.dumps({"workers": workers, "answers": answers}))


def _answer(engine: VllmEngine, question: dict[str, Any], adapter: VllmAdapter | None) -> dict[str, Any]:
    spans = [
        ImageSpan(ImageRef(name, tuple(grid)), start, len(rows))  # type: ignore[arg-type]
        for name, grid, start, rows, _ in question["images"]
    ]
    embeddings = {
        name: ImageEmbedding(torch.tensor(rows), tuple(map(torch.tensor, deepstack)))
        for name, _, _, rows, deepstack in question["images"]
    }
    # Positions are vLLM's own business.
    prompt = Prompt(tuple(question["tokens"]), np.empty((3, 0), np.int64), 0, tuple(spans), ())
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
