"""Uploads a picture once and asks many questions about it, through the plain HTTP interface.

python examples/many_questions.py demo/images/scene-1.png "How many shapes are there?" "What color is the circle?"
"""

import os
import sys
from pathlib import Path

import httpx

SERVER = os.environ.get("LOOKONCE_SERVER", "http://127.0.0.1:8000")


def main(path: str, *questions: str) -> None:
    """Prints each answer with what was reused for it."""
    with httpx.Client(base_url=SERVER, timeout=120) as http:
        image = http.post("/v1/images", content=Path(path).read_bytes()).raise_for_status().json()
        body = {"images": [f"image:{image['id']}"], "questions": [{"text": question} for question in questions]}
        reply = http.post("/v1/answers", json=body).raise_for_status().json()
        for question, answer in zip(questions, reply["answers"], strict=True):
            usage = answer["usage"]
            reused = usage["prompt_tokens_details"]["cached_tokens"]
            print(f"{question}  {answer['text']}  ({reused} of {usage['prompt_tokens']} prompt tokens reused)")


if __name__ == "__main__":
    main(*sys.argv[1:])
