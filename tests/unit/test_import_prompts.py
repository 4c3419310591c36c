"""Rows that are split already: found, checked, copied byte for byte."""

import pytest

from nemoflow import import_prompts, manifest, specs
from nemoflow.config import Config
from nemoflow.errors import UserError
from small_prompts import placeholder, row, write


@pytest.fixture
def take(tmp_path):
    """What the manifest tells of rows at a path, and where they were copied."""

    def take(written, kind="rl", **told):
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        return import_prompts.take({"import": str(written), "kind": kind, **told}, out), out

    return take


def test_files_are_copied_as_they_are(take, tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    (given / "README.md").write_text("about")
    write(given / "train.jsonl", [row(1, note="a"), row(2, "code")])
    content = '{"agent_ref": {"name": "code", "type": "t"},  "x": "é",'
    content += ' "responses_create_params": {"input": [{"role": "user", "content": "question 1"}]}}'
    (given / "validation.jsonl").write_text(content)  # and no line end
    told, out = take(given)
    assert told == {
        "rows": {"in": 3, "kept": 3, "dropped": {}},
        "environments": {
            "boxed_math": {"in": 1, "dropped": {}, "train": 1, "validation": 0},
            "code": {"in": 2, "dropped": {}, "train": 1, "validation": 1},
        },
        "train": 2,
        "validation": 1,
        "in_both": 1,
    }
    assert sorted(path.name for path in out.iterdir()) == ["train.jsonl", "validation.jsonl"]
    for path in out.iterdir():
        assert path.read_bytes() == (given / path.name).read_bytes()


def test_one_file_is_to_train_on(take, tmp_path):
    write(tmp_path / "mine.jsonl", [row(1, level=3)])
    told, out = take(tmp_path / "mine.jsonl", difficulty="level")
    assert [path.name for path in out.iterdir()] == ["train.jsonl"]
    assert (told["train"], told["validation"]) == (1, 0)
    assert told["difficulty"]["max"] == 3


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], r"train\.jsonl, row 2: not_json"),
        (["[]"], r"train\.jsonl, row 2: not_an_object"),
        ([""], r"train\.jsonl, row 2: not_json"),
        ([row(2) | {"agent_ref": None}], r"train\.jsonl, row 2: it has no agent_ref"),
        ([placeholder(1)], r"train\.jsonl, row 2: it stands for a row of another set"),
    ],
)
def test_a_faulty_row_is_named(take, tmp_path, lines, message):
    write(tmp_path / "train.jsonl", [row(1), *lines])
    with pytest.raises(UserError, match=message + ".*mend the file, or name it in sources"):
        take(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "no train.jsonl, no validation.jsonl: there is no such path"),
        ("empty", "no train.jsonl, no validation.jsonl: in it lie no files"),
        ("wrong", "in it lie rows.jsonl"),
        ("rows.json", "not .jsonl"),
        ("none", r"train\.jsonl: it has no rows"),
    ],
)
def test_what_is_no_set_of_rows(take, tmp_path, name, message):
    for folder in ("empty", "wrong", "none"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "wrong/rows.jsonl", [row(1)])
    write(tmp_path / "rows.json", [row(1)])
    write(tmp_path / "none/train.jsonl", [])
    with pytest.raises(UserError, match=message):
        take(tmp_path / name)


def test_a_path_is_looked_for_before_any_job(config_folder, tmp_path):
    (config_folder / "prompts/mine.yaml").write_text("import: rows/mine\n")
    config, product = Config(config_folder), tmp_path / "mine.json"
    with pytest.raises(UserError, match=r"config/prompts/mine\.yaml:1: import: rows/mine: no tra"):
        import_prompts.check_early(config, "mine", product)
    manifest.write(product, specs.of(config, "resolve", {"prompts": "mine"}).identity)
    import_prompts.check_early(config, "mine", product)  # built: the path may be gone
    import_prompts.check_early(config, "micro-facts", product)


def test_imported_rows_are_taken_as_they_are(config_folder):
    for key in ("holdout: 3", "agent: {name: x}", "apart_from: [mmlu]", "max_dropped: 0.1"):
        (config_folder / "prompts/mine.yaml").write_text(f"import: rows\n{key}\n")
        with pytest.raises(UserError, match=f"taken as they are: no {key.split(':')[0]}"):
            Config(config_folder).data("prompts", "mine")
