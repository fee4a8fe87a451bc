"""The reference of the wire contract, from the protos and their comments."""

import tempfile
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from grpc_tools import protoc

from docs.making.repository import ROOT

PROTOS = ROOT / "protos"
Comments = Mapping[tuple[int, ...], str]
# Numbers of the fields of descriptor.proto by which a comment says what it is about.
MESSAGES, ENUMS, SERVICES, SYNTAX = 4, 5, 6, 12
FIELDS, NESTED, METHODS, VALUES = 2, 3, 2, 2
HEAD = """# gRPC

What the gateway and the workers say to each other, written from `protos/*.proto` at each build of this site. Who
may call, and with what, is on [security](../security.md). Servers have reflection: `grpcurl` lists the same.
"""


def markdown() -> str:
    """The page: each file's services and messages, in the files' order."""
    return "\n".join([HEAD, *(part for file in described() for part in _file(file))]) + "\n"


def described() -> list[FileDescriptorProto]:
    """The protos with their comments. Raises RuntimeError where protoc refuses one; it has printed why."""
    sources = sorted(str(path) for path in PROTOS.glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        well_known = str(files("grpc_tools") / "_proto")
        flags = [f"-I{PROTOS}", f"-I{well_known}", "--include_source_info", f"--descriptor_set_out={out}"]
        if protoc.main(["protoc", *flags, *sources]) != 0:
            raise RuntimeError("protoc failed")
        return list(FileDescriptorSet.FromString(out.read_bytes()).file)


def _file(file: FileDescriptorProto) -> Iterator[str]:
    comments = {tuple(each.path): each.leading_comments for each in file.source_code_info.location}
    scope = file.package.split(".")[-2]
    for place, service in enumerate(file.service):
        yield f"## {service.name}\n\n{_text(comments, SYNTAX)}\n\n`{file.package}.{service.name}`\n"
        for number, method in enumerate(service.method):
            yield from _method(method, _text(comments, SERVICES, place, METHODS, number))
        yield f"### Messages of {service.name}\n"
    for place, message in enumerate(file.message_type):
        yield from _message(message, scope, comments, (MESSAGES, place))
    for place, enum in enumerate(file.enum_type):
        yield f"#### {enum.name} {{: #{_anchor(enum.name, scope)} }}\n\n{_text(comments, ENUMS, place)}\n"
        yield "| | value | |\n|---:|---|---|"
        for number, value in enumerate(enum.value):
            yield f"| {value.number} | `{value.name}` | {_cell(_text(comments, ENUMS, place, VALUES, number))} |"
        yield ""


def _method(method: MethodDescriptorProto, told: str) -> Iterator[str]:
    asks, gives = (_name(name) for name in (method.input_type, method.output_type))
    streamed = "a stream of " if method.server_streaming else ""
    yield f"### {method.name}\n\n{asks} → {streamed}{gives}\n\n{told}\n"


def _message(message: DescriptorProto, scope: str, comments: Comments, path: tuple[int, ...]) -> Iterator[str]:
    if message.options.map_entry:
        return
    yield f"#### {message.name} {{: #{_anchor(message.name, scope)} }}\n\n{_text(comments, *path)}\n"
    if message.field:
        yield "| | field | type | |\n|---:|---|---|---|"
        for place, field in enumerate(message.field):
            told = _cell(_text(comments, *path, FIELDS, place))
            yield f"| {field.number} | `{field.name}` | {_type(field, message)} | {told} |"
        yield ""
    for place, nested in enumerate(message.nested_type):
        yield from _message(nested, f"{scope}-{message.name}", comments, (*path, NESTED, place))


def _type(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.type_name:
        entry = next((each for each in message.nested_type if each.name == field.type_name.rpartition(".")[2]), None)
        if entry is not None and entry.options.map_entry:
            key, value = entry.field
            return f"map from {_type(key, entry)} to {_type(value, entry)}"
        kind = _name(field.type_name)
    if field.proto3_optional:
        return f"optional {kind}"
    if field.HasField("oneof_index"):
        return f"{kind}, one of *{message.oneof_decl[field.oneof_index].name}*"
    return f"list of {kind}" if field.label == FieldDescriptorProto.LABEL_REPEATED else kind


def _name(full_name: str) -> str:
    """A message's name as a link to it; `.lookonce.PART.v1.Outer.Inner` has the anchor `part-outer-inner`."""
    if not full_name.startswith(".lookonce."):
        return f"`{full_name[1:]}`"
    _, _, part, _, *names = full_name.split(".")
    return f"[{names[-1]}](#{_anchor('-'.join(names), part)})"


def _anchor(name: str, scope: str) -> str:
    return f"{scope}-{name}".lower()


def _text(comments: Comments, *path: int) -> str:
    lines = comments.get(path, "").splitlines()
    return "\n".join(line.removeprefix(" ") for line in lines).strip()


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")
