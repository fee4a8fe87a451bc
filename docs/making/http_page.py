"""The reference of the HTTP interface, from the gateway's own OpenAPI document."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.app import create_app
from gateway.settings import GatewaySettings

Json = Mapping[str, Any]
HEAD = """# HTTP

Every route of the gateway, written from its OpenAPI document at each build of this site. A running gateway shows
the same at `/docs`, and the document itself at `/openapi.json`. What OpenAI's clients may send, and what becomes of
each parameter, is on [OpenAI's interface](../openai.md).

Errors of every route are OpenAI's [error object](#errorbody).

## Routes
"""
REF = "#/components/schemas/"


def markdown() -> str:
    """The page: routes first, then every shape of a body."""
    document = create_app(GatewaySettings(vision=(), language=())).openapi()
    schemas = document["components"]["schemas"]
    parts = [
        HEAD,
        *_routes(document["paths"]),
        "\n## Bodies\n",
        *(_schema(name, schemas[name]) for name in sorted(schemas)),
    ]
    return "\n".join(parts)


def _routes(paths: Json) -> Iterator[str]:
    for path, operations in paths.items():
        for method, operation in operations.items():
            yield f"### `{method.upper()} {path}`\n\n{operation.get('description', operation['summary'])}\n"
            yield from _parameters(operation.get("parameters", ()))
            takes = _bodies(operation.get("requestBody", {}).get("content", {}))
            if takes:
                yield f"Takes {takes}.\n"
            yield _replies(operation["responses"])


def _parameters(parameters: list[Json]) -> Iterator[str]:
    if parameters:
        yield "| parameter | in | type | |\n|---|---|---|---|"
        for each in parameters:
            told = _cell(each.get("description") or each["schema"].get("description", ""))
            yield f"| `{each['name']}` | {each['in']} | {_type(each['schema'])} | {told} |"
        yield ""


def _bodies(content: Json) -> str:
    return ", ".join(f"`{kind}` {_type(body.get('schema', {}))}".rstrip() for kind, body in content.items())


def _replies(responses: Json) -> str:
    told = []
    for status, response in responses.items():
        if status != "default":
            bodies = _bodies(response.get("content", {})) or "nothing"
            told.append(f"**{status}**: {bodies}.")
    return " ".join(told) + "\n"


def _schema(name: str, schema: Json) -> str:
    lines = [f"### {name} {{: #{name.lower()} }}\n"]
    if "description" in schema:
        lines.append(f"{schema['description']}\n")
    fields = schema.get("properties", {})
    if fields:
        lines.append("| field | type | |\n|---|---|---|")
        required = schema.get("required", ())
        lines += [_field(field, shape, field in required) for field, shape in fields.items()]
    elif "description" not in schema:
        lines.append(_type(schema))
    return "\n".join([*lines, ""])


def _field(name: str, shape: Json, is_required: bool) -> str:
    mark = "" if not is_required else " **required**"
    default = shape.get("default")
    told = _cell(shape.get("description", ""))
    if default not in (None, ""):
        told = f"{told} Default: `{default}`.".strip()
    return f"| `{name}`{mark} | {_type(shape)} | {told} |"


def _type(shape: Json) -> str:
    """A shape in words: what it is, within which bounds."""
    if "$ref" in shape:
        name = str(shape["$ref"]).removeprefix(REF)
        return f"[{name}](#{name.lower()})"
    several = shape.get("anyOf") or shape.get("oneOf") or ()
    if several:
        return " or ".join(dict.fromkeys(_type(each) for each in several if each.get("type") != "null"))
    if "const" in shape:
        return f"`{shape['const']}`"
    if "enum" in shape:
        return " or ".join(f"`{value}`" for value in shape["enum"])
    kind = str(shape.get("type", "any"))
    if kind == "array":
        return f"list of {_type(shape.get('items', {}))}{_bounds(shape, 'minItems', 'maxItems')}"
    return kind + _bounds(shape, "minimum", "maximum") + (" (not empty)" if shape.get("minLength") == 1 else "")


def _bounds(shape: Json, low: str, high: str) -> str:
    least, most = shape.get(low), shape.get(high)
    if least is None and most is None:
        return f", over {_number(shape['exclusiveMinimum'])}" if "exclusiveMinimum" in shape else ""
    if most is None:
        return f", from {_number(least)}"
    over = _number(least) if least is not None else f"over {_number(shape.get('exclusiveMinimum', 0))}"
    return f", {over} to {_number(most)}"


def _number(value: Any) -> str:
    if isinstance(value, float) and value >= 2**31:
        return f"2^{round(value).bit_length() - (0 if round(value) & (round(value) - 1) else 1)}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    """A text that fits a table's cell."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()
