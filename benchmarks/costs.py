"""`python -m benchmarks.costs`: what the parts of a request cost here, and whether the fleet's model agrees.

The costs are measured over HTTP against a deployment on this machine, then W1s, W1, W2 and W3 are, in the same run, and
simulated with these costs. Writes `costs.json`, which `lookonce plan` reads, and `simulation.md`.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import Progress

from benchmarks import machine
from benchmarks.checkpoints import RECIPES, Recipe, make
from benchmarks.pictures import picture_bytes
from benchmarks.results import DIRECTORY, write_table, write_values
from benchmarks.systems.over_http import OverHttp
from benchmarks.workload import Picture
from benchmarks.workloads import question_text
from planning.costs import Costs, Curve
from planning.fleet import Fleet, simulate
from planning.traffic import Request, Traffic

SIDES = (8, 16, 24, 32)
SIDE = 24
DECODING = (1, 8, 32, 64, 128)
PROMPTS = (1, 2, 4, 8, 12)
ANSWER_TOKENS = 16
# The model is to reproduce what was measured within this.
WITHIN = 0.15
SEED = 7_000_000
TIMEOUT_S = 600.0


@dataclass(slots=True)
class Asker:
    """A client that takes the time of single things."""

    http: httpx.Client
    recipe: Recipe
    pictures: int = 0

    def new_picture(self, side: int) -> bytes:
        """A picture that nobody has sent yet, `side` tokens wide and high."""
        self.pictures += 1
        pixels = side * self.recipe.unit
        return picture_bytes(Picture(SEED + self.pictures, pixels, pixels))

    def upload(self, content: bytes) -> tuple[str, float]:
        """The id, and the seconds that it took."""
        began = time.perf_counter()
        reply = self.http.post("/v1/images", content=content, headers={"content-type": "image/png"})
        seconds = time.perf_counter() - began
        reply.raise_for_status()
        return str(reply.json()["id"]), seconds

    def ask(self, image_id: str, count: int, max_tokens: int) -> tuple[int, float]:
        """Tokens of the questions without the image's, and the seconds until all were answered."""
        # They begin unlike: the model knows nothing of what questions share.
        texts = [f"{number + 1}. {question_text(number)}" for number in range(count)]
        questions = [{"text": text, "max_tokens": max_tokens} for text in texts]
        began = time.perf_counter()
        reply = self.http.post("/v1/answers", json={"images": [f"image:{image_id}"], "questions": questions})
        seconds = time.perf_counter() - began
        reply.raise_for_status()
        answers = reply.json()["answers"]
        shared = min(answer["usage"]["prompt_tokens"] for answer in answers)
        return sum(answer["usage"]["prompt_tokens"] for answer in answers) - shared * (count - 1), seconds


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds by what was measured; medians are taken over the repeats."""

    upload_new: Mapping[int, float]
    upload_known: Mapping[int, float]
    ask_new: Mapping[int, float]
    ask_known: Mapping[int, float]
    one_token: Mapping[int, float]
    all_tokens: Mapping[int, float]
    whole: Mapping[str, float]


def take(asker: Asker, progress: Callable[[], None]) -> Taken:
    """One repeat of everything."""
    upload_new, upload_known, ask_new, ask_known = {}, {}, {}, {}
    for side in SIDES:
        content = asker.new_picture(side)
        image_id, upload_new[side] = asker.upload(content)
        upload_known[side] = asker.upload(content)[1]
        ask_new[side] = asker.ask(image_id, 1, 1)[1]
        ask_known[side] = asker.ask(image_id, 1, 1)[1]
        progress()
    image_id, _ = asker.upload(asker.new_picture(SIDE))
    asker.ask(image_id, 1, 1)
    one_token = {count: asker.ask(image_id, count, 1)[1] for count in sorted({*DECODING, *PROMPTS})}
    progress()
    all_tokens = {count: asker.ask(image_id, count, 1 + ANSWER_TOKENS)[1] for count in DECODING}
    progress()
    whole = {}
    for name, images, questions in WHOLE:
        pictures = [asker.new_picture(SIDE) for _ in range(images)]
        whole[name] = _whole(asker, pictures, questions)
        progress()
    return Taken(upload_new, upload_known, ask_new, ask_known, one_token, all_tokens, whole)


WHOLE = (("W1s", 1, 8), ("W1", 1, 32), ("W2", 8, 8), ("W3, first question", 1, 1))
STEPS = len(SIDES) + 2 + len(WHOLE)


def _whole(asker: Asker, pictures: Sequence[bytes], questions: int) -> float:
    """Seconds until all questions about new pictures, sent at once, are answered."""

    def one(content: bytes) -> None:
        image_id, _ = asker.upload(content)
        asker.ask(image_id, questions, ANSWER_TOKENS)

    began = time.perf_counter()
    with ThreadPoolExecutor(len(pictures)) as clients:
        list(clients.map(one, pictures))
    return time.perf_counter() - began


def costs_of(taken: Sequence[Taken], recipe: Recipe, name: str, question_tokens: float) -> Costs:
    """The costs from the medians of all repeats."""

    def median(seconds: Iterable[float]) -> float:
        return statistics.median(seconds)

    encode = [(side**2, median(each.upload_new[side] - each.upload_known[side] for each in taken)) for side in SIDES]
    prefill = [(side**2, median(each.ask_new[side] - each.ask_known[side] for each in taken)) for side in SIDES]
    decode = [
        (count, median((each.all_tokens[count] - each.one_token[count]) / ANSWER_TOKENS for each in taken))
        for count in DECODING
    ]
    # A lone question's request beyond its step, which costs what a decoding step of so many rows does.
    one_s = median(each.one_token[1] for each in taken)
    request_s = max(one_s - _rising(decode)(question_tokens), 0.0)
    prompt = [
        (count * question_tokens, max(median(each.one_token[count] for each in taken) - request_s, 0.0))
        for count in PROMPTS
    ]
    upload_s = median(each.upload_known[SIDE] for each in taken)
    return Costs(
        name=name,
        encode=_rising(encode),
        prefill=_rising(prefill),
        prompt=_rising(prompt),
        decode=_rising(decode),
        store=Curve(((1.0, 0.0), (1e9, 1.0))),
        request_s=request_s + upload_s,
        entry_bytes_per_token=recipe.text.width * (4 if recipe.dtype == "float32" else 2),
        kv_bytes_per_token=recipe.kv_token_bytes,
        shares_cores=True,
    )


def _rising(points: Sequence[tuple[float, float]]) -> Curve:
    """The curve; what noise made less than the point before is that point's."""
    made: list[tuple[float, float]] = []
    for amount, seconds in points:
        made.append((amount, max(seconds, made[-1][1] if made else 0.0)))
    return Curve(tuple(made))


def simulated(costs: Costs, question_tokens: float) -> dict[str, float]:
    """The same workloads in the model."""
    found = {}
    for name, images, questions in WHOLE:
        traffic = Traffic(1.0, questions, SIDE * SIDE, round(question_tokens), ANSWER_TOKENS)
        requests = [Request(0.0, image, questions) for image in range(images)]
        found[name] = max(each.answered_s for each in simulate(costs, traffic, Fleet(1, 1), requests).served)
    return found


def table(measured: Mapping[str, float], model: Mapping[str, float]) -> str:
    """Markdown: what was measured beside what the model says."""
    lines = ["| work | measured s | model s | model / measured |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {name} | {seconds:.2f} | {model[name]:.2f} | {model[name] / seconds:.2f} |"
        for name, seconds in measured.items()
    ]
    return "\n".join(lines)


def main() -> int:
    """The exit status: 1 where the model is further off than it may be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description=__doc__)
    parser.add_argument("--recipe", default="qwen2-vl", choices=sorted(RECIPES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=DIRECTORY)
    chosen = parser.parse_args()
    recipe, console, system = RECIPES[chosen.recipe], Console(), OverHttp()
    system.start(make(recipe.name))
    try:
        with (
            httpx.Client(base_url=system.deployment.gateways[0], timeout=TIMEOUT_S) as http,
            Progress(console=console) as bar,
        ):
            asker = Asker(http, recipe)
            task = bar.add_task("costs", total=STEPS * (chosen.repeats + 1))
            taken = [take(asker, lambda: bar.advance(task)) for _ in range(chosen.repeats + 1)][1:]
            image_id, _ = asker.upload(asker.new_picture(SIDE))
            question_tokens = asker.ask(image_id, 1, 1)[0] - SIDE * SIDE
    finally:
        system.stop()
    costs = costs_of(taken, recipe, f"{chosen.recipe} on {machine.machine()['processor']}", question_tokens)
    measured = {name: statistics.median(each.whole[name] for each in taken) for name, *_ in WHOLE}
    model = simulated(costs, question_tokens)
    text = table(measured, model)
    console.print(text)
    write_values(chosen.out, "costs", costs.to_json())
    write_table(chosen.out, "simulation", f"# The fleet's model beside this machine\n\n{text}\n")
    off = max(abs(model[name] / seconds - 1) for name, seconds in measured.items())
    console.print(f"the model is off by {off:.0%} at most; {WITHIN:.0%} is allowed")
    return 1 if off > WITHIN else 0


if __name__ == "__main__":
    sys.exit(main())
