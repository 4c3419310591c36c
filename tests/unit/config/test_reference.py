"""The generated schema and page tell of every key, and the schema accepts what we wrote."""

from pathlib import Path

import jsonschema
import pytest

from nemoflow.config import reference, yaml12
from nemoflow.config.data import KINDS
from nemoflow.config.run import Run

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "config").rglob("*.yaml")) + sorted((ROOT / "tests/data").rglob("*.yaml"))


@pytest.fixture(scope="module")
def schema():
    return reference.schema()


def problems(schema, kind, document):
    told = jsonschema.Draft202012Validator({**schema, "$ref": f"#/$defs/{kind}"})
    return [error.message for error in told.iter_errors(document)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_schema_accepts_every_file_of_ours(schema, path):
    kind = path.parent.name if path.parent.name in KINDS else "run"
    assert problems(schema, kind, yaml12.read(path)[0]) == []


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("run", {"sft": {"iteration": 3}}),
        ("run", {"pretrain": {"schedule": {"peek": 1e-3}}}),
        ("run", {"rl": {"steps": {"swe1": {"prompts_per_steps": 1}}}}),
        ("run", {"sft": {"iterations": "many"}}),
        ("run", {"export": {"dtype": "float8"}}),
        ("corpora", {"sources": []}),
        ("mixtures", {"sources": {"chats": {"wait": 1}}}),
    ],
)
def test_the_schema_refuses_what_the_models_refuse(schema, kind, document):
    assert problems(schema, kind, document)


def test_the_page_has_a_row_for_every_key():
    page = reference.readme()
    for name, model in {"run": Run, **KINDS}.items():
        assert (f"## config/{name}/*.yaml" if name in KINDS else "## config/*.yaml") in page
        for inner in {"": model.model_json_schema(), **model.model_json_schema().get("$defs", {})}:
            assert not inner or f"\n### {inner}\n" in page
        for field, told in model.model_fields.items():
            assert f"\n| `{told.alias or field}` | " in page


@pytest.mark.parametrize(
    ("key", "row"),
    [
        ("iterations", "| `iterations` | whole number |  |  |"),
        ("epsilon", "| `epsilon` | number | `1e-08` |  |"),
        ("dispatcher", '`alltoall` \\| `flex` \\| `allgather` | `"alltoall"` |'),
        ("used_by", "| `used_by` | list of text |  | environments that ask it |"),
        ("phases", "| `phases` | mapping to Phase |  |  |"),
        ("weights", "| `weights` | mapping to number or null | `null` |"),
        ("mtp", "| `mtp` | Mtp or null | `null` | null = no multi-token prediction |"),
        ("harness", "text or mapping"),
    ],
)
def test_the_page_words_types_for_people(key, row):
    assert row in reference.readme(), [
        line for line in reference.readme().splitlines() if line.startswith(f"| `{key}`")
    ]
