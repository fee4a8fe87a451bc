"""`python -m benchmarks.grammar`: what holding answers to a grammar costs for each token, beside free answers.

In one engine and one run, batches of free answers and of held ones take turns; all have the same prompts and the same
number of tokens. Beside it: what a mask takes by itself, and how much of that the engine waited for.
"""

import argparse
import json
import queue
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import transformers
from rich.console import Console
from rich.markdown import Markdown

from benchmarks import machine
from benchmarks.checkpoints import RECIPES, make
from benchmarks.results import DIRECTORY, write_table, write_values
from checkpoint import load_language
from kernels import leave_threads_to_the_model
from lm_server import metrics
from lm_server.constraints import Constraint
from lm_server.engine import Engine
from lm_server.grammars import Grammar, Vocabulary
from lm_server.main import make_engine, token_facts
from lm_server.probing import ParserLimits
from lm_server.prompt import Message, Prompt, PromptBuilder, segment_keys
from lm_server.settings import LanguageSettings
from lm_server.tickets import Event, Failed, Finished, Work
from lm_server.tied import hold_table_once

FREE = "free"
# None of them can end before an answer is as long as it may be.
_RECORD = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "kind": {"enum": ["cat", "dog", "bird"]},
        "box": {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4},
    },
    "required": ["name", "kind", "box"],
    "additionalProperties": False,
}
FORMS = {
    "regex": Constraint("regex", ("( [a-z]+){10000}",)),
    "json_schema": Constraint("json_schema", (json.dumps({"type": "array", "items": _RECORD, "minItems": 10_000}),)),
    "lark": Constraint("lark", ('start: pair{10000}\npair: "(" pair ")" | / [a-z]{1,8}/',)),
}


@dataclass(slots=True)
class Timing:
    """Batches of one form.

    Attributes:
        form: What the answers were held to.
        batch: Answers at once.
        step_s: Of each repeat, seconds for one token of every answer.
        wait_s: Of each repeat, the part of it in which the engine waited for masks.
    """

    form: str
    batch: int
    step_s: list[float] = field(default_factory=list)
    wait_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result:
    """A whole run. `mask_s` is what the mask of one token takes by itself, the median over an answer, by form."""

    machine: dict[str, Any]
    command: str
    recipe: str
    vocabulary: int
    tokens: int
    mask_s: dict[str, float]
    timings: list[Timing]


class Bench:
    """An engine of a recipe's language half."""

    def __init__(self, recipe: str, threads: ThreadPoolExecutor) -> None:
        model_dir = make(recipe)
        own_threads = leave_threads_to_the_model(None)
        tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
        half = load_language(model_dir, on_table=hold_table_once)
        self.prompts = PromptBuilder(tokenizer, token_facts(half, tokenizer))
        self.vocabulary = half.model.config.get_text_config().vocab_size
        vocabulary = Vocabulary(tokenizer, self.vocabulary, half.description.eos_token_ids)
        self.grammars = {
            name: Grammar(constraint, vocabulary, ParserLimits(), threads) for name, constraint in FORMS.items()
        }
        settings = LanguageSettings(str(model_dir), "", "memory://", (), threads=own_threads)
        self.engine: Engine = make_engine(settings, half, tokenizer)

    def answer(self, form: str, batch: int, num_tokens: int) -> list[tuple[int, ...]]:
        """The tokens of a batch of answers. Raises what failed, or `RuntimeError` for one that ends early."""
        events: list[queue.SimpleQueue[Event]] = [queue.SimpleQueue() for _ in range(batch)]
        works = [self._work(self._prompt(number), form, num_tokens) for number in range(batch)]
        tickets = self.engine.submit(works, [each.put for each in events])
        for each in events:
            while not isinstance(event := each.get(), Finished):
                if isinstance(event, Failed):
                    raise event.error
            if event.num_generated != num_tokens:
                raise RuntimeError(f"an answer ended after {event.num_generated} tokens")
        return [tuple(ticket.sequence.output) for ticket in tickets]

    def _prompt(self, number: int) -> Prompt:
        return self.prompts.build([Message("user", (f"question {number}",))])

    def _work(self, prompt: Prompt, form: str, num_tokens: int) -> Work:
        grammar = None if form == FREE else self.grammars[form]
        return Work(prompt, segment_keys(prompt, "public", ""), max_tokens=num_tokens, grammar=grammar)


@contextmanager
def opened(recipe: str) -> Iterator[Bench]:
    """A running bench."""
    with ThreadPoolExecutor(1) as threads:
        bench = Bench(recipe, threads)
        bench.engine.start()
        try:
            yield bench
        finally:
            bench.engine.stop()


def measure(bench: Bench, batch: int, num_tokens: int, repeats: int) -> list[Timing]:
    """Free answers and those of every form in turn, in batches of one size."""
    timings = {form: Timing(form, batch) for form in (FREE, *FORMS)}
    for number in range(repeats + 1):
        for form, timing in timings.items():
            waited, started = _waited(), time.perf_counter()
            bench.answer(form, batch, num_tokens)
            # The first round warms up.
            if number:
                timing.step_s.append((time.perf_counter() - started) / num_tokens)
                timing.wait_s.append((_waited() - waited) / num_tokens)
    return list(timings.values())


def _waited() -> float:
    return float(metrics.GRAMMAR_WAIT._value.get())


def mask_seconds(bench: Bench, form: str, num_tokens: int) -> float:
    """Seconds of one token and the mask behind it, with nothing else going on: the median over an answer."""
    (tokens,) = bench.answer(form, 1, num_tokens)
    grammar = bench.grammars[form]
    matcher = grammar.begin()
    seconds: list[float] = []
    for token in tokens:
        started = time.perf_counter()
        matcher.consume_token(token)
        grammar.vocabulary.forbidden(matcher.compute_bitmask())
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def run(recipe: str, batches: Sequence[int], num_tokens: int, repeats: int) -> Result:
    """Measures every batch size."""
    with opened(recipe) as bench:
        timings = [timing for batch in batches for timing in measure(bench, batch, num_tokens, repeats)]
        masks = {form: mask_seconds(bench, form, num_tokens) for form in FORMS}
        command = machine.command("benchmarks.grammar")
        return Result(machine.machine(), command, recipe, bench.vocabulary, num_tokens, masks, timings)


def over_free(found: Result, timing: Timing) -> float:
    """The median step of a form over that of free answers in batches of the same size."""
    free = next(one for one in found.timings if (one.form, one.batch) == (FREE, timing.batch))
    return median(timing.step_s) / median(free.step_s)


def markdown(found: Result) -> str:
    """The tables, of medians."""
    host = f"{found.machine['processor']}, {found.machine['cores']} cores"
    place = (
        f"`{found.command}`, {host}, {found.recipe}, {found.vocabulary} tokens of vocabulary, {found.tokens} an answer"
    )
    lines = [
        "# Answers held to a grammar",
        "",
        place,
        "",
        "| answers at once | held to | ms a step | over free | of it waiting for masks, ms |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [_line(found, timing) for timing in found.timings]
    lines += ["", "| held to | one mask by itself, ms |", "| --- | --- |"]
    lines += [f"| {form} | {seconds * 1e3:.3f} |" for form, seconds in found.mask_s.items()]
    return "\n".join(lines) + "\n"


def _line(found: Result, timing: Timing) -> str:
    step, wait = median(timing.step_s) * 1e3, median(timing.wait_s) * 1e3
    return f"| {timing.batch} | {timing.form} | {step:.2f} | {over_free(found, timing):.3f} | {wait:.3f} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the arguments say; the exit status."""
    options = _parser().parse_args(arguments)
    batches = [int(size) for size in options.batches.split(",")]
    found = run(options.recipe, batches, options.tokens, options.repeats)
    write_values(options.out, options.title, asdict(found))
    write_table(options.out, options.title, markdown(found))
    Console().print(Markdown(markdown(found)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grammar", description=__doc__)
    parser.add_argument("--recipe", default="qwen2-vl", choices=sorted(RECIPES))
    parser.add_argument("--batches", default="1,8,32", help="answers at once, commas between")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--title", default="grammar", help="name of the files written")
    parser.add_argument("--out", type=Path, default=DIRECTORY)
    return parser


if __name__ == "__main__":
    sys.exit(main())
