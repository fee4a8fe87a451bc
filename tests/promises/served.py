"""The deployment that the promises are held against, and the good request that every refusal is followed by."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from tests.cache.servers import Server
from tests.deployment import Deployment
from tests.end_to_end.asking import data_url


@dataclass
class Served:
    """The processes, their checkpoint, stubs of both workers, and what the good request was answered first."""

    deployment: Deployment
    model_dir: Path
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
        return self.deployment.http.post("/v1/chat/completions", json={"model": self.model, **body})

    @property
    def model(self) -> str:
        """The served model's name."""
        return str(self.deployment.http.get("/v1/models").json()["data"][0]["id"])

    def key(self, image_id: str, tenant: str = "public") -> str:
        """The entry's key in the store."""
        fingerprint = self.deployment.vision_info().fingerprint
        return f"lookonce:{{{image_id.removeprefix('img_')}}}:{fingerprint}:{tenant}"

    def check_good(self) -> None:
        """The next good request is answered, and as it was answered first."""
        response = self.chat(data_url(1))
        assert response.status_code == 200, response.text
        text = response.json()["choices"][0]["message"]["content"]
        self.calm = text if self.calm is None else self.calm
        assert text == self.calm
