"""Questions for the engine around vLLM, asked in a process of vLLM's own Python, without the wire between."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deployment import environment
from tests.lm_server.workshop import Case, Workshop
from tests.vllm.conftest import START_S


@dataclass(frozen=True)
class Told:
    """What `tests.vllm.answered` printed.

    Attributes:
        workers: vLLM's processes that hold a part of the model.
        answers: For each case its answers: twice, and with the adapter in between where there is one.
    """

    workers: int
    answers: list[list[dict[str, Any]]]


def answers(
    python: Path,
    model: Path,
    shop: Workshop,
    cases: Sequence[Case],
    directory: Path,
    options: Mapping[str, Any],
    adapter: Path | None = None,
) -> Told:
    """Starts vLLM with these options, asks every case, and ends it."""
    asked = {
        "model": str(model),
        "options": dict(options),
        "adapter": str(adapter) if adapter else None,
        "questions": [_question(shop, case) for case in cases],
    }
    file = directory / "asked.json"
    file.write_text(json.dumps(asked))
    command = [python, "-m", "tests.vllm.answered", str(file)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment(), timeout=START_S, check=False)
    # vLLM's own log is in it.
    assert told.returncode == 0, told.stdout
    return Told(**json.loads(told.stdout.splitlines()[-1]))


def _question(shop: Workshop, case: Case) -> dict[str, Any]:
    prompt = shop.prompt(case)
    images = []
    for number, span in zip(case.pictures, prompt.images, strict=True):
        made = shop.image(number)[1]
        rows, deepstack = made.merged.tolist(), [layer.tolist() for layer in made.deepstack]
        images.append([span.image.image_id, span.image.grid, span.start, rows, deepstack])
    return {"tokens": prompt.tokens, "images": images}
