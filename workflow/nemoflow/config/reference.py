"""`config/schema.json` and `config/README.md`, generated: `python -m nemoflow.config.reference`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from nemoflow.config.data import KINDS
from nemoflow.config.run import Run
from nemoflow.files import write_whole

INTRODUCTION = """\
# Config

One file is one run: its stem is the run's name and its folder under `results/`. A run may extend
another: mappings merge, lists replace, `null` removes. What stands in `pretrain` or `rl` and is a
key of their phases or steps is the default of each. Data sets are files of their own, in the
folders below, named by stem and shared by all runs. Scalars are those of YAML 1.2; an unknown key
is an error. Sizes of machines stand in `profiles/`, secrets in environment variables.

    python -m nemoflow show super3-tiny             a run with everything it inherits
    python -m nemoflow explain super3-tiny sft.iterations
    python -m nemoflow new my-lr --extends super3-tiny sft.schedule.peak=5e-4
    snakemake --profile profiles/local --config set="sft.schedule.peak=5e-4" TARGET

This page and `schema.json` are generated from the models (`make reference`).
"""


def schema() -> dict[str, Any]:
    """The JSON Schema of a run file and of each kind of data file, for editors.

    `#/$defs/run`, `#/$defs/corpora`, …; what is required is not said, since a file may inherit it.
    """
    kinds = {"run": Run, **KINDS}
    _, described = models_json_schema([(model, "validation") for model in kinds.values()])
    models = described["$defs"]
    for whole, entry in (("Pretrain", "Phase"), ("Rl", "Step")):  # there stand their defaults
        models[whole]["properties"] = models[entry]["properties"] | models[whole]["properties"]
    named = {name: {"$ref": f"#/$defs/{model.__name__}"} for name, model in kinds.items()}
    draft = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": draft, "$defs": {**named, **loose(models)}}


def loose(part: Any) -> Any:
    """A schema without `required`, in which every key may be null: a file may inherit, or unset."""
    if isinstance(part, list):
        return [loose(item) for item in part]
    if not isinstance(part, dict):
        return part
    made = {key: loose(value) for key, value in part.items() if key != "required"}
    for keys in made.keys() & {"properties", "patternProperties"}:
        made[keys] = {
            key: {"anyOf": [inner, {"type": "null"}]} for key, inner in made[keys].items()
        }
    return made


def kind_of(field: dict[str, Any]) -> str:
    """A field's type in words."""
    if "$ref" in field:
        return field["$ref"].rsplit("/", 1)[-1]
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if "anyOf" in field:
        return " or ".join(kind_of(option) for option in field["anyOf"])
    if field.get("type") == "array":
        return f"list of {kind_of(field.get('items', {}))}"
    if field.get("type") == "object":
        inner = [*field.get("patternProperties", {}).values(), field.get("additionalProperties")][0]
        return f"mapping to {kind_of(inner)}" if isinstance(inner, dict) else "mapping"
    return {"integer": "whole number", "string": "text", "boolean": "true or false"}.get(
        field.get("type", ""), field.get("type", "anything")
    )


def section(title: str, model: dict[str, Any]) -> Iterator[str]:
    """A model as a table of its keys."""
    yield f"\n### {title}\n\n{model.get('description', '')}\n\n"
    yield "| key | value | default | |\n|---|---|---|---|\n"
    for key, field in model.get("properties", {}).items():
        default = f"`{json.dumps(field['default'])}`" if "default" in field else ""
        text = field.get("description", "")
        yield f"| `{key}` | {kind_of(field)} | {default} | {text} |\n"


def readme() -> str:
    """The page of all keys."""
    parts = [INTRODUCTION]
    for name, model in {"run": Run, **KINDS}.items():
        described = model.model_json_schema()
        place = "config/*.yaml" if name == "run" else f"config/{name}/*.yaml"
        parts.append(f"\n## {place}\n")
        for title, inner in {model.__name__: described, **described.get("$defs", {})}.items():
            parts += section(title, inner)
    return "".join(parts)


def files() -> dict[str, str]:
    """The generated files and their contents."""
    text = json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
    return {"config/schema.json": text, "config/README.md": readme()}


if __name__ == "__main__":
    for path, text in files().items():
        write_whole(Path(path), text)
