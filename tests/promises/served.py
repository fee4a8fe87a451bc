"""The deployment that the promises are held against, and the good request that every refusal is followed by."""

from dataclasses import dataclass, field
from typing import Any

import grpc

from tests.cache.servers import Server
from tests.deployment import Deployment
from tests.end_to_end.asking import data_url


@dataclass
class Served:
    """The processes, and stubs of both workers; `calm` is what the good request was answered first."""

    deployment: Deployment
    store: Server
    eyes: grpc.Channel
    mouth: grpc.Channel
    vision: Any
    language: Any
    calm: str | None = field(default=None)

    def chat(self, image: str, **more: Any) -> Any:
        """The response to one question about one image."""
        url = {"type": "image_url", "image_url": {"url": image}}
        content = [url, {"type": "text", "text": "what is it?"}]
        body = {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 4, **more}
        model = self.deployment.http.get("/v1/models").json()["data"][0]["id"]
        return self.deployment.http.post("/v1/chat/completions", json={"model": model, **body})

    def check_good(self) -> None:
        """The next good request is answered, and as it was answered first."""
        response = self.chat(data_url(1))
        assert response.status_code == 200, response.text
        text = response.json()["choices"][0]["message"]["content"]
        self.calm = text if self.calm is None else self.calm
        assert text == self.calm
