"""All that is wrong with a config.json, for ``pyrun validate``: the loader's checks and our JSON schema, joined.

The schema is the second opinion: it says again, declared and not programmed, what each member may hold; the tests
hold it, the loader and the official schema against each other. jsonschema costs 105 ms of imports, so nothing on the
path of create imports this module.
"""

from __future__ import annotations

import json
import os
from functools import cache
from typing import Any

from pyrun.errors import ConfigError
from pyrun.oci.load import in_document_order, load_bytes, parse

SCHEMA = os.path.join(os.path.dirname(__file__), "schema", "config.json")


def validate(data: bytes) -> list[tuple[str, str]]:
    """Every fault as (JSON pointer, text), in the order of the document, each place's once; [] for a good config."""
    try:
        load_bytes(data)
        ours: list[tuple[str, str]] = []
    except ConfigError as error:
        ours = error.faults
    try:
        document, _ = parse(data, "config.json")
    except ConfigError:
        return ours
    told = {pointer for pointer, _ in ours}
    theirs = [(pointer, text) for pointer, text in schema_faults(document) if pointer not in told]
    return in_document_order(document, [*ours, *theirs])


def schema_faults(document: Any) -> list[tuple[str, str]]:
    """What our JSON schema says of a parsed document, as (JSON pointer, text), in no order. A member that is null is
    absent, as for the loader, which has a fault of its own where it may not be."""
    faults = []
    for error in _validator().iter_errors(_without_nulls(document)):
        at = "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in error.absolute_path)
        faults += _explained(at, error.validator, error.validator_value, error.instance, error.message)
    return faults


def _without_nulls(value: Any) -> Any:
    match value:
        case dict():
            return {name: _without_nulls(entry) for name, entry in value.items() if entry is not None}
        case list():
            return [_without_nulls(entry) for entry in value]
        case _:
            return value


@cache
def _validator() -> Any:
    from jsonschema import Draft4Validator

    with open(SCHEMA, encoding="utf-8") as file:
        return Draft4Validator(json.load(file))


def _explained(at: str, rule: str, wanted: Any, value: Any, message: str) -> list[tuple[str, str]]:
    """The faults of one jsonschema error; a missing member is a fault at its own place, as in the loader."""
    match rule:
        case "required":
            return [(f"{at}/{name}", "is missing") for name in wanted if name not in value]
        case "dependencies":
            pairs = [
                (have, need) for have, needs in wanted.items() for need in needs if have in value and need not in value
            ]
            return [(f"{at}/{have}", f"must be set along with {need}") for have, need in pairs]
        case _:
            return [(at, message if len(message) <= 200 else f"{message[:200]}…")]
