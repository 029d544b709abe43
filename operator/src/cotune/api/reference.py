"""Writes `docs/reference/` from the models: `python -m cotune.api.reference [--check] FOLDER`."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from cotune.api.crds import GROUP, RESOURCES, VERSION, Resource
from cotune.api.generated import write_or_check

Schema = Mapping[str, Any]

_HEAD = "<!-- Generated from the models in cotune.api by `make docs`; edit those. -->\n"
_BOUNDS = (
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " entries"),
    ("minProperties", "maxProperties", " entries"),
)


def rendered() -> dict[str, str]:
    """File name and text of every page."""
    pages = {f"{it.kind.lower()}.md": _page(it) for it in RESOURCES}
    return {"README.md": _index(RESOURCES)} | pages


def _index(resources: Sequence[Resource]) -> str:
    rows = [f"| [{it.kind}]({it.kind.lower()}.md) | `{it.short_name}` | {_doc(it.crd())} |" for it in resources]
    head = [
        "# Reference",
        "",
        f"All of `{GROUP}/{VERSION}`.",
        "",
        "| kind | short name | what it says |",
        "|---|---|---|",
    ]
    return _HEAD + "\n".join([*head, *rows]) + "\n"


def _page(resource: Resource) -> str:
    version = resource.crd()["spec"]["versions"][0]
    schema = cast("Schema", version["schema"]["openAPIV3Schema"])
    properties = cast("Mapping[str, Schema]", schema["properties"])
    columns = ", ".join(
        f"{it['name']} (`{it['jsonPath']}`{', with `-o wide`' if it.get('priority') else ''})"
        for it in version["additionalPrinterColumns"]
    )
    lines = [
        f"# {resource.kind}",
        "",
        f"`{GROUP}/{VERSION}`, plural `{resource.plural}`, short name `{resource.short_name}`. {schema['description']}",
        "",
        f"Columns of `kubectl get`: {columns}.",
    ]
    if found := list(_rules(schema, "", "")):
        lines += ["", "Rules:", "", *found]
    for part in ("spec", "status"):
        if part in properties:
            required = " (required)" if part in schema.get("required", ()) else ""
            lines += ["", f"## {part}{required}", *_section(properties[part], part)]
    return _HEAD + "\n".join(lines) + "\n"


def _section(schema: Schema, path: str) -> Iterator[str]:
    yield ""
    yield "| field | type | default | bounds | |"
    yield "|---|---|---|---|---|"
    yield from _rows(schema, path)
    if found := list(_rules(schema, path, path)):
        yield ""
        yield "Rules:"
        yield ""
        yield from found


def _rows(schema: Schema, path: str) -> Iterator[str]:
    required = cast("Sequence[str]", schema.get("required", ()))
    for name, field in cast("Mapping[str, Schema]", schema.get("properties", {})).items():
        here = f"{path}.{name}"
        default = "required" if name in required else _default(field)
        yield f"| `{here}` | {_type(field)} | {default} | {_bounds(field)} | {_prose(field.get('description', ''))} |"
        yield from _rows(_inner(field), here + "[]" * (field.get("type") == "array"))


def _rules(schema: Schema, path: str, within: str) -> Iterator[str]:
    """Every rule's message, with the field at which a refusal points."""
    for rule in cast("Sequence[Mapping[str, str]]", schema.get("x-kubernetes-validations", ())):
        where = f"{path}{rule.get('fieldPath', '')}".removeprefix(".")
        yield f"- `{where}`: {_prose(rule['message'])}"
    if not within:  # The parts of a resource have sections of their own.
        return
    if "items" in schema:
        yield from _rules(cast("Schema", schema["items"]), f"{path}[]", within)
    for name, field in cast("Mapping[str, Schema]", schema.get("properties", {})).items():
        yield from _rules(field, f"{path}.{name}", within)


def _inner(field: Schema) -> Schema:
    """The object whose fields stand below this one."""
    return cast("Schema", field["items"]) if field.get("type") == "array" else field


def _type(field: Schema) -> str:
    if field.get("type") == "array":
        kind = {"set": "set of ", "map": "list of "}.get(str(field.get("x-kubernetes-list-type", "")), "list of ")
        keys = ", ".join(field.get("x-kubernetes-list-map-keys", ()))
        return kind + _type(cast("Schema", field["items"])) + (f", by {keys}" if keys else "")
    if "enum" in field:
        return " or ".join(f"`{it}`" for it in field["enum"])
    if field.get("format") == "date-time":
        return "time"
    if field.get("x-kubernetes-preserve-unknown-fields"):
        return "object, any fields"
    if "additionalProperties" in field:
        return f"map of {_type(cast('Schema', field['additionalProperties']))}"
    return str(field.get("type", "any"))


def _default(field: Schema) -> str:
    return f"`{json.dumps(field['default'])}`" if "default" in field else ""


def _bounds(field: Schema) -> str:
    each = list(_limits(cast("Schema", field["items"]))) if field.get("type") == "array" else []
    return "; ".join([*_limits(field), *([f"each: {', '.join(each)}"] if each else [])]).replace("|", "\\|")


def _limits(field: Schema) -> Iterator[str]:
    for least, most, unit in _BOUNDS:
        match field.get(least), field.get(most):
            case None, None:
                pass
            case low, None:
                yield f"at least {low}{unit}"
            case None, high:
                yield f"at most {high}{unit}"
            case low, high:
                yield f"{low} to {high}{unit}"
    if "pattern" in field:
        yield f"`{field['pattern']}`"


def _doc(crd: Mapping[str, Any]) -> str:
    return _prose(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"])


def _prose(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(write_or_check(rendered(), "*.md", "docs"))
