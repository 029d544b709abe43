"""From pydantic's JSON schema to the structural schema that a CRD wants.

References are written out, `X | None` becomes X, titles and null defaults go, and a schema that CEL could not bound in
cost (a list or string without a maximum) is a programming error.
"""

from typing import Any, cast

from pydantic import BaseModel

Schema = dict[str, Any]

_DROPPED = ("title", "additionalProperties", "discriminator")


def structural_schema(model: type[BaseModel]) -> Schema:
    """The structural schema of a model, with camelCase names.

    Raises:
        ValueError: the model recurses, has a union of several types, or a list or string without a maximum.
    """
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _converted(schema, cast("Schema", schema.get("$defs", {})), (), model.__name__)


def _converted(schema: Schema, definitions: Schema, seen: tuple[str, ...], path: str) -> Schema:
    node = dict(schema)
    node.pop("$defs", None)
    if "$ref" in node:
        name = cast("str", node.pop("$ref")).rsplit("/", 1)[-1]
        if name in seen:
            raise ValueError(f"{path}: recursive type {name}")
        return _converted(cast("Schema", definitions[name]) | node, definitions, (*seen, name), path)
    if "anyOf" in node:
        kinds = [kind for kind in cast("list[Schema]", node.pop("anyOf")) if kind.get("type") != "null"]
        if len(kinds) != 1:
            raise ValueError(f"{path}: a union of several types has no structural schema")
        return _converted(kinds[0] | node, definitions, seen, path)
    values = node.get("additionalProperties")
    for key in _DROPPED:
        node.pop(key, None)
    if node.get("default", ...) is None:
        del node["default"]
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if "enum" in node:
        node.setdefault("type", "string")
    match node.get("type"):
        case "object":
            properties = cast("Schema", node.get("properties", {}))
            if properties:
                node["properties"] = {
                    name: _converted(cast("Schema", value), definitions, seen, f"{path}.{name}")
                    for name, value in properties.items()
                }
            elif isinstance(values, dict):
                if "maxProperties" not in node:
                    raise ValueError(f"{path}: a map without a maximum")
                node["additionalProperties"] = _converted(cast("Schema", values), definitions, seen, f"{path}{{}}")
            elif not node.get("x-kubernetes-preserve-unknown-fields"):
                raise ValueError(f"{path}: an object without properties")
        case "array":
            if "maxItems" not in node:
                raise ValueError(f"{path}: a list without a maximum")
            node["items"] = _converted(cast("Schema", node["items"]), definitions, seen, f"{path}[]")
        case "string":
            if not {"maxLength", "enum", "format"} & node.keys():
                raise ValueError(f"{path}: a string without a maximum")
        case _:
            pass
    return node
