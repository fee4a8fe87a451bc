"""Every way that a request can fail before or inside a route, said as OpenAI's error object."""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gateway.errors import ApiError, BadRequest, Missing, Unforeseen, api_error
from gateway.schema import ErrorBody, ErrorObject
from rpc.errors import RpcError

# pydantic's error types → OpenAI's codes.
CODES = {
    "extra_forbidden": "unknown_parameter",
    "unsupported": "unsupported_parameter",
    "missing": "missing_required_parameter",
    "json_invalid": "invalid_json",
}
MESSAGES = {"extra_forbidden": "there is no such field", "missing": "this field is required"}
NOT_JSON = "the body must be a JSON object, sent with Content-Type: application/json"


def error_object(error: ApiError) -> ErrorObject:
    """OpenAI's error object."""
    return ErrorObject(message=error.message, type=error.kind, param=error.param, code=error.code)


def error_response(error: ApiError) -> Response:
    """The reply that tells a client of an error."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(ErrorBody(error=error_object(error)).model_dump(), error.status, headers)


def field_path(loc: Sequence[str | int]) -> str | None:
    """A place in a body as clients write it: `messages[0].content[1].image_url.url`. None for the body itself.

    pydantic puts the names of union branches between the fields; ours are written in angle brackets.
    """
    path = ""
    for step in loc:
        if isinstance(step, int):
            path += f"[{step}]"
        elif not step.startswith("<"):
            path += f".{step}" if path else step
    return path or None


def validation_error(errors: Sequence[Mapping[str, Any]]) -> BadRequest:
    """The first of pydantic's errors as one of ours."""
    first = errors[0]
    kind, where = first["type"], first["loc"]
    code = CODES.get(kind)
    if kind == "json_invalid":
        return BadRequest(f"the body is not valid JSON: at character {where[-1]}", code=code)
    path = field_path(where[1:] if where and where[0] == "body" else where)
    if path is None:
        return BadRequest(NOT_JSON if kind != "value_error" else str(first["msg"]), code=code)
    return BadRequest(f"{path}: {MESSAGES.get(kind, first['msg'])}", param=path, code=code)


async def _api(_: Request, exc: Exception) -> Response:
    return error_response(exc) if isinstance(exc, ApiError) else error_response(Unforeseen())


async def _rpc(_: Request, exc: Exception) -> Response:
    return error_response(api_error(exc) if isinstance(exc, RpcError) else Unforeseen())


async def _validation(_: Request, exc: Exception) -> Response:
    errors = exc.errors() if isinstance(exc, RequestValidationError) else []
    return error_response(validation_error(errors))


async def _http(request: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    if status == HTTPStatus.NOT_FOUND:
        return error_response(Missing(f"there is no {request.method} {request.url.path}", code="unknown_route"))
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return _method_not_allowed(request, exc)
    if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return error_response(BadRequest("the body cannot be read", code="invalid_body"))
    return error_response(Unforeseen())


def _method_not_allowed(request: Request, exc: Exception) -> Response:
    error = BadRequest(f"{request.url.path} does not take {request.method}", code="method_not_allowed")
    headers = dict(exc.headers or {}) if isinstance(exc, HTTPException) else {}
    return JSONResponse(ErrorBody(error=error_object(error)).model_dump(), HTTPStatus.METHOD_NOT_ALLOWED, headers)


def install(app: FastAPI) -> None:
    """Makes every failure of the application an error object; the unforeseen is logged with its traceback."""
    app.add_exception_handler(ApiError, _api)
    app.add_exception_handler(RpcError, _rpc)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _api)
