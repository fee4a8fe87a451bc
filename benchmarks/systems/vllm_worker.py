"""vLLM's CPU build, tuned as its own guide asks. Runs in an environment of its own, with the standard library and vLLM.

Settings: eager, blocks of 32, prefix caching, at most 128 sequences, both cores bound, everything in one process,
pictures named by their paths so that their pixels need not be hashed. Its caches of processed pictures and of encoder
outputs are on, as by default. `registry.py` preloads tcmalloc and iomp.
"""

import json
import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.systems.system import Setup
from benchmarks.workload import Answer, Outcome, Question, Workload

BLOCK_TOKENS = 32
MAX_SEQUENCES = 128
KV_GIB = 4
MAX_TOKENS = 8192
# Environment variable: rows of a step at most, where not vLLM's own default; its encoder cache is as large in tokens.
BATCHED_TOKENS = "BENCH_VLLM_BATCHED_TOKENS"


@dataclass(slots=True)
class _Asked:
    place: int
    at: float
    first_token_s: float | None = None


class Worker:
    """One engine."""

    def start(self, setup: Setup) -> None:
        """Loads the model into an engine. This is the CPU's build: it takes no other device."""
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(KV_GIB)
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, setup.cores))
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        self._numbers = iter(range(1 << 62))
        blocks = None if setup.kv_tokens is None else -(-setup.kv_tokens // BLOCK_TOKENS) + 1
        self._open(setup.checkpoint, blocks)

    def _open(self, checkpoint: str, blocks: int | None) -> None:
        from vllm import LLM  # type: ignore[import-not-found,unused-ignore]  # of another environment

        config = json.loads((Path(checkpoint) / "config.json").read_text())
        context = min(MAX_TOKENS, config["text_config"]["max_position_embeddings"])
        bounds: dict[str, Any] = {}
        if blocks is not None:
            bounds["num_gpu_blocks_override"] = blocks
            context = min(context, (blocks - 1) * BLOCK_TOKENS)
        if BATCHED_TOKENS in os.environ:
            bounds["max_num_batched_tokens"] = int(os.environ[BATCHED_TOKENS])
        self._llm: Any = LLM(
            checkpoint,
            # "auto" would cast float32 down.
            dtype=config["dtype"],
            block_size=BLOCK_TOKENS,
            enforce_eager=True,
            enable_prefix_caching=True,
            max_num_seqs=MAX_SEQUENCES,
            max_model_len=context,
            limit_mm_per_prompt={"image": 1, "video": 0},
            logprobs_mode="processed_logprobs",
            generation_config="vllm",
            **bounds,
        )
        self._tokenizer: Any = self._llm.get_tokenizer()

    def run(self, workload: Workload, paths: Sequence[str]) -> Outcome:
        """Adds requests as they are due, and steps the engine until all are answered."""
        engine = self._llm.llm_engine
        waiting = deque(range(len(workload.questions)))
        pictures: dict[int, Image.Image] = {}
        asked: dict[str, _Asked] = {}
        answers: dict[int, Answer] = {}
        started = time.perf_counter()
        while waiting or asked:
            now = time.perf_counter() - started
            while waiting and self._may_ask(workload, waiting[0], len(asked), now):
                place = waiting.popleft()
                question = workload.questions[place]
                if question.picture not in pictures:
                    pictures[question.picture] = Image.open(paths[question.picture]).convert("RGB")
                at = started + question.at_s if question.at_s or workload.is_burst else time.perf_counter()
                number = str(next(self._numbers))
                asked[number] = _Asked(place, at)
                prompt = self._prompt(question, pictures[question.picture], paths[question.picture])
                engine.add_request(number, prompt, self._sampling(question, workload))
            if workload.deadline_s is not None:
                self._leave(workload.deadline_s, asked, answers)
            if not asked:
                time.sleep(0.0005)
                continue
            for output in engine.step():
                self._take(output, asked, answers, workload.questions)
        seconds = time.perf_counter() - started
        return Outcome(seconds, tuple(answers[place] for place in range(len(workload.questions))))

    def _may_ask(self, workload: Workload, place: int, num_asked: int, now: float) -> bool:
        if workload.in_flight is not None and num_asked >= workload.in_flight:
            return False
        return workload.questions[place].at_s <= now

    def _prompt(self, question: Question, picture: Image.Image, path: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]}]
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return {"prompt": text, "multi_modal_data": {"image": picture}, "multi_modal_uuids": {"image": path}}

    def _sampling(self, question: Question, workload: Workload) -> Any:
        from vllm import SamplingParams

        if not question.choices:
            ignore = not workload.is_ending
            return SamplingParams(temperature=0.0, max_tokens=question.max_tokens, ignore_eos=ignore)
        return SamplingParams(
            temperature=0.0,
            max_tokens=1,
            ignore_eos=True,
            allowed_token_ids=[self._label(choice) for choice in question.choices],
            logprobs=len(question.choices),
        )

    def _leave(self, deadline_s: float, asked: dict[str, _Asked], answers: dict[int, Answer]) -> None:
        """Clients whose patience is over leave; their requests are aborted, as vLLM's server does."""
        now = time.perf_counter()
        left = [number for number, request in asked.items() if now - request.at > deadline_s]
        for number in left:
            self._llm.llm_engine.abort_request([number])
            answers[asked.pop(number).place] = Answer("", 0, deadline_s, error="left at the deadline")

    def _label(self, choice: str) -> int:
        [token] = self._tokenizer.encode(choice, add_special_tokens=False)
        return int(token)

    def _take(
        self, output: Any, asked: dict[str, _Asked], answers: dict[int, Answer], questions: Sequence[Question]
    ) -> None:
        # The engine may add to a request's name.
        number = output.request_id.split("-")[0]
        if number not in asked:
            return
        request = asked[number]
        completion = output.outputs[0]
        elapsed = time.perf_counter() - request.at
        if request.first_token_s is None and completion.token_ids:
            request.first_token_s = elapsed
        if not output.finished:
            return
        question = questions[request.place]
        del asked[number]
        text, num_tokens = completion.text, len(completion.token_ids)
        probabilities: tuple[float, ...] = ()
        if question.choices:
            probabilities = self._probabilities(completion.logprobs[0], question.choices)
            text, num_tokens = question.choices[probabilities.index(max(probabilities))], 0
        answers[request.place] = Answer(text, num_tokens, elapsed, request.first_token_s, probabilities)

    def _probabilities(self, logprobs: Any, choices: Sequence[str]) -> tuple[float, ...]:
        from math import exp

        return tuple(exp(logprobs[self._label(choice)].logprob) for choice in choices)
