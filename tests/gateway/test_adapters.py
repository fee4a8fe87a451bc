"""LoRA adapters over HTTP: loaded and unloaded on every worker, chosen as a model, and refused honestly."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from rpc.errors import InvalidArgument, NotFound, PermissionDenied, RpcError, Unavailable
from tests.gateway.conftest import Line, StartLine

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
IT = {"lora_name": "org/it", "lora_path": "/adapters/it"}
QUESTION = {"messages": [{"role": "user", "content": "a"}]}


def error_of(response: httpx.Response) -> Mapping[str, Any]:
    """The error object of a reply."""
    found: Mapping[str, Any] = response.json()["error"]
    return found


async def test_an_adapter_is_loaded_on_every_worker_and_listed(start_line: StartLine) -> None:
    """Loading reaches all language workers; the adapter is then listed behind its model, until it is unloaded."""
    line = await start_line(languages=2)
    loaded = await line.post(LOAD, IT)
    assert loaded.status_code == 200
    assert loaded.json() == {
        "id": "org/it",
        "object": "lora_adapter",
        "parent": "tiny",
        "created": 1_700_000_000,
        "rank": 8,
        "bytes": 4096,
    }
    assert [[(a.name, a.path) for a in each.info.adapters] for each in line.languages] == [
        [("org/it", IT["lora_path"])]
    ] * 2
    models = (await line.client.get("/v1/models")).json()["data"]
    assert [(model["id"], model.get("parent")) for model in models] == [("tiny", None), ("org/it", "tiny")]
    assert (await line.client.get("/v1/models/org/it")).json() == models[1]
    unloaded = await line.post(UNLOAD, {"lora_name": "org/it"})
    assert unloaded.json() == {"id": "org/it", "object": "lora_adapter", "unloaded": True}
    assert [len(each.info.adapters) for each in line.languages] == [0, 0]
    assert [model["id"] for model in (await line.client.get("/v1/models")).json()["data"]] == ["tiny"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/answers"])
async def test_the_model_of_a_request_chooses_the_adapter(line: Line, path: str) -> None:
    """A request that names an adapter is passed on with it and answered in its name; others go without one."""
    body: dict[str, Any] = QUESTION if "chat" in path else {"questions": [{"text": "a"}]}
    await line.post(LOAD, IT)
    replies = [await line.post(path, {**body, **more}) for more in ({"model": "org/it"}, {"model": "tiny"}, {})]
    assert [reply.json()["model"] for reply in replies] == ["org/it", "tiny", "tiny"]
    assert [request.adapter for request in line.language.requests] == ["org/it", "", ""]
    unknown = await line.post(path, {**body, "model": "other"})
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "model_not_found")


async def test_an_adapter_that_another_loaded_is_found(line: Line) -> None:
    """An adapter that this gateway has never heard of, from a flag or another gateway, is asked for at once."""
    line.language.info.adapters.add(name="other", rank=1)
    assert (await line.post("/v1/chat/completions", {**QUESTION, "model": "other"})).json()["model"] == "other"


async def test_an_adapter_that_a_worker_has_lost_is_no_model(line: Line) -> None:
    """A worker that no longer has an adapter answers 404, for a request with image bytes too."""
    await line.post(LOAD, IT)
    assert (await line.post("/v1/chat/completions", {**QUESTION, "model": "org/it"})).status_code == 200
    line.language.error = NotFound("there is no adapter 'org/it' on this worker", reason="MODEL_NOT_FOUND")
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    for content in ("a", [image, {"type": "text", "text": "a"}]):
        before = len(line.language.requests)
        reply = await line.post(
            "/v1/chat/completions", {"messages": [{"role": "user", "content": content}], "model": "org/it"}
        )
        assert (reply.status_code, error_of(reply)["code"]) == (404, "model_not_found")
        # It is no lost image: nothing is asked twice.
        assert len(line.language.requests) == before + 1


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidArgument("adapter_config.json: 'use_dora' is set", reason="ADAPTER_INVALID"), 400, "adapter_invalid"),
        (PermissionDenied("this worker loads no adapters"), 403, "permission_denied"),
        (Unavailable("the language worker does not answer"), 503, "unavailable"),
    ],
)
async def test_what_all_workers_refuse_is_told_as_they_say_it(
    start_line: StartLine, error: RpcError, status: int, code: str
) -> None:
    """Where every worker fails alike the client is told that failure."""
    line = await start_line(languages=2)
    for worker in line.languages:
        worker.adapter_error = error
    reply = await line.post(LOAD, IT)
    assert (reply.status_code, error_of(reply)["code"]) == (status, code)
    assert error.message in error_of(reply)["message"]


async def test_partial_failure_is_told_and_the_adapter_not_served(start_line: StartLine) -> None:
    """Where one of two workers fails the reply names it and its reason; the adapter is no model until both have it."""
    line = await start_line(languages=2)
    line.languages[1].adapter_error = InvalidArgument("there is no adapter_config.json", reason="ADAPTER_INVALID")
    reply = await line.post(LOAD, IT)
    assert (reply.status_code, error_of(reply)["code"]) == (502, "partly_done")
    message = error_of(reply)["message"]
    assert "1 of 2 failed" in message
    assert f"127.0.0.1:{line.language_servers[1].port}: there is no adapter_config.json" in message
    assert (await line.post("/v1/chat/completions", {**QUESTION, "model": "org/it"})).status_code == 404
    line.languages[1].adapter_error = None
    assert (await line.post(LOAD, IT)).status_code == 200
    assert (await line.post("/v1/chat/completions", {**QUESTION, "model": "org/it"})).status_code == 200


async def test_unloading_what_only_some_have_succeeds(start_line: StartLine) -> None:
    """A worker that does not have an adapter does not keep it from being unloaded; where none has it there is none."""
    line = await start_line(languages=2)
    line.languages[0].info.adapters.add(name="half")
    assert (await line.post(UNLOAD, {"lora_name": "half"})).status_code == 200
    reply = await line.post(UNLOAD, {"lora_name": "half"})
    assert (reply.status_code, error_of(reply)["code"]) == (404, "model_not_found")
    line.languages[0].info.adapters.add(name="half")
    line.languages[1].adapter_error = Unavailable("the language worker does not answer")
    assert (await line.post(UNLOAD, {"lora_name": "half"})).status_code == 502


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"lora_path": "/x"}, "lora_name"),
        ({"lora_name": "", "lora_path": "/x"}, "lora_name"),
        ({"lora_name": "x" * 129, "lora_path": "/x"}, "lora_name"),
        ({"lora_name": "tiny", "lora_path": "/x"}, "lora_name"),
        ({"lora_name": "it"}, "lora_path"),
        ({"lora_name": "it", "lora_path": 1}, "lora_path"),
        ({"lora_name": "it", "lora_path": "x" * 5000}, "lora_path"),
        ({"lora_name": "it", "lora_path": "/x", "rank": 1}, "rank"),
    ],
)
async def test_bad_bodies_are_refused_by_field(line: Line, body: Any, param: str) -> None:
    """A body that is no good is refused by its field before any worker is asked."""
    reply = await line.post(LOAD, body)
    assert (reply.status_code, error_of(reply)["param"]) == (400, param)
    assert not line.language.info.adapters


@pytest.mark.parametrize(("lora_tenant", "allowed"), [(None, ""), ("ops", "ops")])
async def test_with_tokens_one_tenant_may_load(
    start_line: StartLine, tmp_path: Path, lora_tenant: str | None, allowed: str
) -> None:
    """Adapters are served to all tenants: only --lora-tenant's tokens load and unload them, without it nobody's."""
    tokens = tmp_path / "tokens"
    tokens.write_text("secret-a alice\nsecret-o ops\n")
    line = await start_line(tokens_file=str(tokens), lora_tenant=lora_tenant)
    for token, tenant in (("secret-a", "alice"), ("secret-o", "ops")):
        headers = {"Authorization": f"Bearer {token}"}
        wanted = [200, 200] if tenant == allowed else [403, 403]
        replies = [
            await line.post(LOAD, IT, headers=headers),
            await line.post(UNLOAD, {"lora_name": "org/it"}, headers=headers),
        ]
        assert [reply.status_code for reply in replies] == wanted
    await line.post(LOAD, IT, headers={"Authorization": "Bearer secret-o"})
    # Every tenant may ask it, and is told of it.
    chat = await line.post(
        "/v1/chat/completions", {**QUESTION, "model": "org/it"}, headers={"Authorization": "Bearer secret-a"}
    )
    assert chat.status_code == (200 if allowed else 404)
