"""LoRA adapters over HTTP: loaded and unloaded on every language worker, and what is told where some of them fail."""

from collections.abc import Mapping
from typing import TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.errors import BadRequest, Forbidden, Missing, PartlyDone, api_error
from gateway.openapi import json_reply
from gateway.schema_adapters import AdapterBody, LoadAdapterBody, UnloadAdapterBody, UnloadedAdapter
from gateway.service import Service, service_of, tenant_of
from rpc.errors import NotFound, RpcError

router = APIRouter(tags=["adapters"])

Reply = TypeVar("Reply")


@router.post("/v1/load_lora_adapter", response_model=AdapterBody)
async def load_lora_adapter(request: Request, body: LoadAdapterBody) -> Response:
    """Loads an adapter on every language worker, in the place of one that has its name.

    502: some workers have it and some do not; it is not served until all have. Loading it again is safe.
    """
    service = service_of(request)
    _check_allowed(service, tenant_of(request))
    model = await service.model()
    if body.lora_name == model:
        raise BadRequest("lora_name: this is the model's own name", param="lora_name")
    service.language.require_one()
    replies = await service.language.load_adapter(body.lora_name, body.lora_path, service.deadline())
    service.adapters.forget()
    loaded = _unanimous(replies, f"the adapter {body.lora_name!r} is not loaded on every language worker")
    return json_reply(
        AdapterBody(
            id=loaded.name,
            object="lora_adapter",
            parent=model,
            created=loaded.created,
            rank=loaded.rank,
            bytes=loaded.bytes,
        )
    )


@router.post("/v1/unload_lora_adapter", response_model=UnloadedAdapter)
async def unload_lora_adapter(request: Request, body: UnloadAdapterBody) -> Response:
    """Unloads an adapter on every language worker. Answers under way are finished with it."""
    service = service_of(request)
    _check_allowed(service, tenant_of(request))
    service.language.require_one()
    replies = await service.language.unload_adapter(body.lora_name, service.deadline())
    service.adapters.forget()
    if all(isinstance(reply, NotFound) for reply in replies.values()):
        raise Missing(f"there is no adapter {body.lora_name!r}", param="lora_name", code="model_not_found")
    # One that does not have it is where it shall be.
    rest = {address: reply for address, reply in replies.items() if not isinstance(reply, NotFound)}
    _unanimous(rest, f"the adapter {body.lora_name!r} is not unloaded on every language worker")
    return json_reply(UnloadedAdapter(id=body.lora_name, object="lora_adapter", unloaded=True))


def _check_allowed(service: Service, tenant: str) -> None:
    """Adapters are served to all tenants, so that with tokens one tenant is trusted with them, or none.

    Raises:
        Forbidden: not this one.
    """
    settings = service.settings
    if settings.tokens_file is not None and tenant != settings.lora_tenant:
        raise Forbidden("this token's tenant may not load or unload adapters: see --lora-tenant")


def _unanimous(replies: Mapping[str, Reply | RpcError], failure: str) -> Reply:
    """A reply of many that agree.

    Raises:
        ApiError: what the workers say where all fail for one reason.
        PartlyDone: some failed; names them, and says why.
    """
    errors = {address: reply for address, reply in replies.items() if isinstance(reply, RpcError)}
    done = [reply for reply in replies.values() if not isinstance(reply, RpcError)]
    if not errors:
        return done[0]
    first = next(iter(errors.values()))
    if not done and all((type(each), each.reason) == (type(first), first.reason) for each in errors.values()):
        raise api_error(first)
    told = "; ".join(f"{address}: {error.message}" for address, error in errors.items())
    raise PartlyDone(f"{failure}, {len(errors)} of {len(replies)} failed: {told}")
