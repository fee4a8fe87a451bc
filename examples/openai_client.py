"""Asks about a picture with the OpenAI client, streamed.

pip install openai
python examples/openai_client.py demo/images/scene-1.png "Describe the picture."
"""

import base64
import os
import sys
from pathlib import Path

from openai import OpenAI

SERVER = os.environ.get("LOOKONCE_SERVER", "http://127.0.0.1:8000")


def main(path: str, question: str) -> None:
    """Prints the answer as it comes."""
    client = OpenAI(base_url=f"{SERVER}/v1", api_key="none")
    picture = base64.b64encode(Path(path).read_bytes()).decode()
    stream = client.chat.completions.create(
        model=client.models.list().data[0].id,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
                    {"type": "text", "text": question},
                ],
            }
        ],
        stream=True,
    )
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            print(chunk.choices[0].delta.content, end="", flush=True)
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
