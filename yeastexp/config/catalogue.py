"""Descriptions of all parts and keys: lists, `docs/parts.md`, and a JSON Schema for editors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from yeastexp import plugins
from yeastexp.config.experiment import ARRAYS, DEFAULT_TASK, OPTIONAL, TABLES, TASK
from yeastexp.config.loading import LENGTHS
from yeastexp.config.settings import SCHEMAS
from yeastexp.errors import UserError, did_you_mean
from yeastexp.registry import KINDS, Entry, Schema


def parts(kind: str | None = None, name: str | None = None) -> list[dict[str, Any]]:
    """Return kind, name and summary of the parts of one kind or of all; with a name, the full description of one."""
    plugins.load_installed()
    if kind is not None and kind not in KINDS:
        raise UserError(f"unknown kind '{kind}'{did_you_mean(kind, KINDS)}")
    if kind is not None and name is not None:
        return [described(KINDS[kind].find(name))]
    registries = [KINDS[kind]] if kind else KINDS.values()
    return [
        {"kind": entry.kind, "name": entry.name, "summary": entry.summary}
        for registry in registries
        for entry in registry.entries()
    ]


def described(entry: Entry) -> dict[str, Any]:
    """Return a part's options with types and defaults, its docstring, and the place of its definition."""
    properties = _table_schema(entry.schema, {}).get("properties", {})
    options = [
        {
            "name": parameter.name,
            "type": shape(properties[parameter.name]),
            "required": parameter.default is parameter.empty,
            "default": None if parameter.default is parameter.empty else parameter.default,
            "description": properties[parameter.name].get("description", ""),
        }
        for parameter in entry.schema.parameters
    ]
    return {
        "kind": entry.kind,
        "name": entry.name,
        "summary": entry.summary,
        "doc": entry.doc,
        "place": entry.place,
        "given": entry.schema.given,
        "options": options,
    }


def reference() -> str:
    """Return `docs/parts.md`: all parts with their options, as Markdown."""
    lines = ["# Parts", "", "Written by `python -m yeastexp list --markdown > docs/parts.md`."]
    for kind, registry in KINDS.items():
        lines += ["", f"## {kind}"]
        if not registry.entries():
            lines += ["", f"None is built in; [how to write one](your-own-part.md#{kind})."]
        for entry in registry.entries():
            part = described(entry)
            lines += ["", f"### `{part['name']}`", "", part["doc"]]
            if part["options"]:
                lines += ["", "| option | type | default | |", "| --- | --- | --- | --- |"]
            for option in part["options"]:
                default = "required" if option["required"] else _written(option["default"])
                cells = (f"`{option['name']}`", option["type"], default, option["description"])
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _written(default: Any) -> str:
    """Return a default as TOML writes it; empty for None, which TOML expresses by omitting the key."""
    return "" if default is None else f"`{json.dumps(default, ensure_ascii=False, default=str)}`"


TYPES = {"integer": "int", "number": "float", "string": "string", "boolean": "true | false"}
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def shape(schema: dict[str, Any]) -> str:
    """Return the JSON Schema of a value in words short enough for a column, such as `int ≥ 1, ≤ 8`."""
    if "anyOf" in schema:
        return " | ".join(shape(option) for option in schema["anyOf"] if option.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return " | ".join(f"'{option}'" for option in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        items = [shape(option) for option in schema.get("prefixItems", [])] or [shape(schema.get("items", {})), "…"]
        return f"[{', '.join(items)}]"
    if schema.get("format") in ("path", "file-path"):
        return "path"
    kind = str(schema.get("type", "any"))
    name = TYPES.get(kind, kind)
    return name + ",".join(f" {sign} {_bound(schema[key])}" for key, sign in LIMITS.items() if key in schema)


def _bound(number: float) -> str:
    if number == 2**63 - 1:
        return "2⁶³ - 1"
    return str(number) if isinstance(number, int) else f"{number:g}"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of an experiment file with all parts that are registered now."""
    # A file that extends another need not have any table or key of its own, so each table has a second schema without
    # required keys.
    definitions: dict[str, Any] = {}
    whole: dict[str, Any] = {}
    partial: dict[str, Any] = {}
    whole["task"], partial["task"] = _task(definitions), _task(definitions, [])
    for table, schema in SCHEMAS.items():
        whole[table], partial[table] = _table_schema(schema, definitions), _table_schema(schema, definitions, [])
    whole["train"]["oneOf"] = [{"required": [key]} for key in LENGTHS]
    partial["train"]["not"] = {"anyOf": [{"required": list(pair)} for pair in _pairs(LENGTHS)]}
    for table, kind in TABLES.items():
        entries = KINDS[kind].entries()
        whole[table], partial[table] = _choice(entries, definitions), _partial_choice(entries, definitions)
    for table, kind in ARRAYS.items():
        array = {"type": "array", "items": _choice(KINDS[kind].entries(), definitions)}
        whole[table] = partial[table] = array if table in OPTIONAL else {**array, "minItems": 1}
    common = {
        "name": {"type": "string", "description": "the run's folder under runs/; the file's stem"},
        "plugins": {"type": "array", "items": {"type": "string"}, "description": "Python files beside this one"},
    }
    required = [table for table in whole if table not in (*OPTIONAL, "loss")]
    own_loss = [entry.name for entry in KINDS["task"].entries() if not getattr(entry.factory, "needs_loss", True)]
    of_task = {
        "required": ["task"],
        "properties": {"task": {"required": ["name"], "properties": {"name": {"enum": own_loss}}}},
    }
    loss = {"if": of_task, "then": {}, "else": {"required": ["loss"]}} if own_loss else {"required": ["loss"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "a yeastexp experiment",
        "type": "object",
        "properties": {
            "extends": {"type": "string", "description": "the one parent: a file, or as in 'yeastexp:base'"},
            **common,
        }
        | {table: {} for table in whole},
        "additionalProperties": False,
        "if": {"required": ["extends"]},
        "then": {"properties": partial},
        "else": {"properties": whole, "required": required, "allOf": [loss]},
        "$defs": definitions,
    }


def _pairs(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for index, first in enumerate(names):
        yield from ((first, other) for other in names[index + 1 :])


def _table_schema(schema: Schema, definitions: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    table = schema.model.model_json_schema(ref_template="#/$defs/{model}")
    definitions.update(table.pop("$defs", {}))
    table.pop("title", None)
    for field in table.get("properties", {}).values():
        field.pop("title", None)
        if field.get("default", 0) is None:
            del field["default"]  # TOML has no null
    if required is not None:
        table["required"] = required
    return table


def _named(entry: Entry, definitions: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    table = _table_schema(entry.schema, definitions, required)
    name = {"const": entry.name, "description": entry.summary}
    table["properties"] = {"name": name, **table.get("properties", {})}
    table["required"] = ["name", *table.get("required", [])]
    return table


def _task(definitions: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    """Return the schema of `[task]`: the keys of every task, and the options of the one that it names."""
    shared = _table_schema(TASK, definitions, required)
    entries = KINDS["task"].entries()
    cases = []
    for entry in entries:
        options = _table_schema(entry.schema, definitions, required)
        names = {"enum": [entry.name]}
        properties = {"name": names, **shared["properties"], **options.get("properties", {})}
        needed = [*shared.get("required", []), *options.get("required", [])]
        then = {"properties": properties, "required": needed, "additionalProperties": False}
        # In JSON Schema a condition on a missing property holds. So `required` keeps a table without a name from
        # matching every task; it matches the default task alone, as it does when it is read.
        condition: dict[str, Any] = {"properties": {"name": names}}
        if entry.name != DEFAULT_TASK:
            condition["required"] = ["name"]
        cases.append({"if": condition, "then": then})
    return {"type": "object", "properties": {"name": {"enum": [entry.name for entry in entries]}}, "allOf": cases}


def _choice(entries: Sequence[Entry], definitions: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    """Return the schema of a table whose keys depend on the part that it names."""
    cases = [
        {"if": {"properties": {"name": {"const": entry.name}}}, "then": _named(entry, definitions, required)}
        for entry in entries
    ]
    if not entries:  # of a kind that only plugins offer
        return {"type": "object", "required": ["name"]}
    names = {"enum": [entry.name for entry in entries]}
    return {"type": "object", "properties": {"name": names}, "required": ["name"], "allOf": cases}


def _partial_choice(entries: Sequence[Entry], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of such a table in a file that extends another, from which it may inherit the name."""
    keys: dict[str, Any] = {key: {} for entry in entries for key in entry.schema.keys}
    nameless = {"type": "object", "properties": keys, "additionalProperties": False}
    return {"if": {"required": ["name"]}, "then": _choice(entries, definitions, []), "else": nameless}
