"""Rows of names, types and numbers → message classes and enums of protobuf's own runtime (upb).

Neither the official api.proto nor a file generated from it is in the tree: the facts are ours as rows, and a test
compares them with the official description. They go into a pool of their own, so that another program's classes of the
same names, in one process with ours, are no conflict.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

PACKAGE = "runtime.v1"

_SCALARS = {
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "uint32": descriptor_pb2.FieldDescriptorProto.TYPE_UINT32,
    "uint64": descriptor_pb2.FieldDescriptorProto.TYPE_UINT64,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
}


class Rpc(NamedTuple):
    """One RPC: the classes of its request and response, and whether it answers with a stream of these."""

    service: str
    name: str
    request: Any
    response: Any
    streaming: bool

    @property
    def path(self) -> str:
        """Where HTTP/2 finds it."""
        return f"/{PACKAGE}.{self.service}/{self.name}"


def describe(messages: tuple[str, ...], enums: str) -> Any:
    """The rows as a FileDescriptorProto."""
    file = descriptor_pb2.FileDescriptorProto(name="pyrun/cri_api", package=PACKAGE, syntax="proto3")
    enum_rows = dict(_rows(enums))
    for rows in messages:
        for name, fields in _rows(rows):
            message = file.message_type.add(name=name)
            for words in fields:
                _add_field(message, words, enum_rows)
    owners = {message.name: message for message in file.message_type}
    for name, values in enum_rows.items():
        owner, _, inner = name.rpartition(".")
        enum = owners[owner].enum_type.add(name=inner) if owner else file.enum_type.add(name=name)
        for value, value_number in values:
            enum.value.add(name=value, number=int(value_number))
    return file


def load(file: Any) -> dict[str, Any]:
    """Every message class, every enum, and the enums' values, by the names that a generated module has them under."""
    pool = descriptor_pool.DescriptorPool()
    described = pool.AddSerializedFile(file.SerializeToString())
    names: dict[str, Any] = {}
    for name, enum in described.enum_types_by_name.items():
        names[name] = EnumTypeWrapper(enum)
        names.update((value.name, value.number) for value in enum.values)
    for name, message in described.message_types_by_name.items():
        names[name] = message_factory.GetMessageClass(message)
    return names


def load_services(rows: dict[str, str], classes: dict[str, Any]) -> dict[str, dict[str, Rpc]]:
    services: dict[str, dict[str, Rpc]] = {}
    for service, text in rows.items():
        services[service] = {}
        for name, ((request,), response) in _rows(text):
            answer = classes[response[-1]]
            services[service][name] = Rpc(service, name, classes[request], answer, response[0] == "stream")
    return services


def _rows(text: str) -> Iterator[tuple[str, list[list[str]]]]:
    """`name: words, words` → the name and the words; an indented line goes on with the one before."""
    for row in text.replace("\n    ", " ").strip().splitlines():
        name, _, rest = row.partition(":")
        yield name, [part.split() for part in rest.split(",") if part]


def _add_field(message: Any, words: list[str], enums: dict[str, Any]) -> None:
    name, kind, number = words
    field = message.field.add(name=name, number=int(number), label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
    if kind.endswith("[]") or kind == "map":
        field.label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
        kind = kind.removesuffix("[]")
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
        return
    if kind == "map":
        kind = f"{message.name}.{_add_entry(message, name)}"
    field.type_name = f".{PACKAGE}.{kind}"
    is_enum = kind in enums
    field.type = (
        descriptor_pb2.FieldDescriptorProto.TYPE_ENUM if is_enum else descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
    )


def _add_entry(message: Any, name: str) -> str:
    """A map is a repeated message of key and value, whose name protoc makes of the field's."""
    entry = message.nested_type.add(name="".join(word[:1].upper() + word[1:] for word in name.split("_")) + "Entry")
    entry.options.map_entry = True
    for number, part in enumerate(("key", "value"), 1):
        entry.field.add(
            name=part,
            number=number,
            type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
            label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
        )
    return str(entry.name)
