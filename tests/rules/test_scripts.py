"""Each script by hand: what it says of itself, what it refuses, what it makes of a few kB.

Those that need a trained model are in test_scripts_again.py.
"""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from nemoflow import files, specs
from nemoflow.config.base import plain
from nemoflow.config.mixture import MixtureSource, Reasoning

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py"))
WITH_SPEC = sorted(specs.SPECS)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (SCRIPTS.parents[1] / "config/templates/chatml.jinja").read_text()


def run(name, *arguments, folder=None):
    """Run a script as a person would."""
    return subprocess.run(
        [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
    )


def make(name, *arguments, folder):
    """Run a script that must succeed."""
    done = run(name, *arguments, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stderr


def required(name):
    """The flags that a script cannot do without."""
    calls = re.findall(
        r"add_argument\(\s*\"(--\w+)\"(.*?)\)\n", (SCRIPTS / f"{name}.py").read_text(), re.S
    )
    return [flag for flag, rest in calls if "required=True" in rest]


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """The message of a script that stops in a folder of its own; it changes nothing there."""
    monkeypatch.chdir(tmp_path)

    def refused(name, spec, **given):
        arguments = {flag: f"{flag[2:]}.json" for flag in required(name)}
        arguments |= {"--spec": spec} if name in WITH_SPEC else {}
        arguments |= {f"--{flag}": value for flag, value in given.items()}
        monkeypatch.setattr(
            sys, "argv", [name, *(word for pair in arguments.items() for word in pair)]
        )
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        assert isinstance(stopped.value.code, str), capsys.readouterr().err  # exit code 1, and said
        return stopped.value.code

    return refused


@pytest.mark.parametrize("name", NAMES)
def test_help_names_and_explains_every_argument(name):
    said = run(name, "--help")
    assert said.returncode == 0 and said.stdout.startswith(f"usage: {name}.py")
    (about,) = re.findall(r'\A"""(.*)"""', (SCRIPTS / f"{name}.py").read_text())
    assert about in " ".join(said.stdout.split())
    for flag in re.findall(r'"(--\w+)"', (SCRIPTS / f"{name}.py").read_text()):
        assert re.search(rf"^  {flag} .*(\n +)?[a-z]{{3}}", said.stdout, re.M), f"{flag}: no help"


@pytest.mark.parametrize("name", WITH_SPEC)
def test_a_missing_spec_is_named(refused, tmp_path, name):
    assert refused(name, "nothing.json").startswith("error: nothing.json: there is no such spec")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WITH_SPEC)
def test_the_spec_of_another_stage_is_refused(refused, name):
    other = "plan" if name != "plan" else "blend"
    spec = {"stage": other, "run": None, "identity": {"stage": other, "version": 1}, "options": {}}
    files.write_json("spec.json", spec)
    assert f"spec.json: a spec of {other}, not of {name}" in refused(name, "spec.json")


FIRST = {"image", "import_model", "plan", "resolve", "tokenizer", "eval_items"}  # of sources


@pytest.mark.parametrize("name", sorted({*NAMES} - FIRST))
def test_a_missing_manifest_is_named(refused, name):
    identity = {"stage": name, "version": 1, "engine": "local", "weights": {"a": 1}, "seed": 0}
    identity |= {"stages": ["sft"], "tasks": ["arc"], "corpus": "a", "source": {"local": "x"}}
    spec = {"stage": name, "run": "x", "identity": identity, "options": {}}
    files.write_json("spec.json", spec)
    said = refused(name, "spec.json")
    assert "there is no such product; build it first" in said
    assert re.match(r"error: \w+\.json: ", said)


def test_a_refusal_reaches_the_shell_without_a_traceback(tmp_path):
    done = run("plan", "--spec", "no.json", "--sources", "s", "--output", "o.json", folder=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: no.json: ") and "Traceback" not in done.stderr
    assert run("plan", folder=tmp_path).returncode == 2


def spec(folder, stage, options=None, run=None, **identity):
    """A spec file written by hand."""
    path = folder / f"{stage}.spec.json"
    told = {"stage": stage, "version": specs.VERSIONS[stage], **identity}
    files.write_json(path, {"stage": stage, "run": run, "identity": told, "options": options or {}})
    return path.name


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "all its files are empty: text.jsonl"),
        (None, "source local text.jsonl: no such file"),
        ('{"text": "a"}\n[1]\n', "text.jsonl, line 2"),
        ('{"text": 7}\n', "row 1 of "),
    ],
)
def test_faulty_sources_are_told_by_row(refused, tmp_path, content, said):
    if content is not None:
        (tmp_path / "text.jsonl").write_text(content)
    train = {"sources": [{"local": "text.jsonl"}], "text_field": "text", "special_tokens": SPECIAL}
    path = spec(tmp_path, "tokenizer", vocab_size=300, train={**train, "template": TEMPLATE})
    assert said in refused("tokenizer", path, sources="cache", output="t.json")
    assert not (tmp_path / "t.json").exists()


def test_rl_rows_of_the_wrong_type_are_told(refused, tmp_path):
    row = {"responses_create_params": {"input": "text"}, "agent_ref": {"type": "a", "name": "b"}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    path = spec(
        tmp_path, "resolve", kind="rl", sources=[{"local": "rows.jsonl"}], holdout=0, seed=1
    )
    said = refused("resolve", path, sources="cache", output="p.json")
    assert "row 1: responses_create_params.input must be a list of messages" in said
    assert "max_dropped: 0.0 allows" in said and not (tmp_path / "p.json").exists()


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A folder with a few kB of sources and a tokenizer made by its script."""
    folder = tmp_path_factory.mktemp("bench")
    text = [{"text": f"the sum of {i} and {i} is {2 * i}, and nothing else."} for i in range(60)]
    text += [{"text": ""}, {"text": "short"}]
    chat = [
        {
            "messages": [
                {"role": "user", "content": f"{i}+1?"},
                {"role": "assistant", "content": f"{i + 1}"},
            ]
        }
        for i in range(40)
    ]
    for name, rows in (("text", text), ("chat", chat)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = spec(
        folder,
        "tokenizer",
        vocab_size=300,
        train={
            "sources": [{"local": "text.jsonl"}],
            "text_field": "text",
            "special_tokens": SPECIAL,
            "template": TEMPLATE,
        },
    )
    make("tokenizer", "--spec", path, "--sources", "cache", "--output", "d/tok.json", folder=folder)
    return folder


def test_a_corpus_from_rows_to_blend(bench):
    source = {"local": "text.jsonl"}
    cut = spec(bench, "plan", source=source, parts=2, shards_per_part=1)
    make("plan", "--spec", cut, "--sources", "cache", "--output", "d/plan.json", folder=bench)
    identity = {
        "corpus": "sums", "dtype": "int32", "text_field": "text", "min_doc_chars": 6,
        "splits": {"valid": 0.1, "test": 0.1}, "seed": 1,
    }  # fmt: skip
    tokens = spec(bench, "tokens", {"source": source, "max_dropped": 0.1}, **identity)
    parts = [f"d/sums.parts/{i:04d}.json" for i in range(2)]
    for part in parts:
        make(
            *("tokens", "--spec", tokens, "--sources", "cache", "--plan", "d/plan.json"),
            *("--tokenizer", "d/tok.json", "--part", Path(part).stem, "--output", part),
            folder=bench,
        )
    joined = spec(bench, "corpus", **identity, parts=2)
    make("corpus", "--spec", joined, "--parts", *parts, "--output", "d/sums.json", folder=bench)
    content = files.read_json(bench / "d/sums.json")
    assert content["rows"]["in"] == 62 and content["rows"]["kept"] == 60
    assert content["rows"]["dropped"] == {"empty_text": 1, "too_short": 1}
    assert {file["path"].split("/")[0] for file in content["files"]} == {"0000", "0001"}

    weights = spec(bench, "blend", run="x", weights={"sums": 2.0})
    make(
        "blend",
        "--spec",
        weights,
        "--corpora",
        "d/sums.json",
        "--output",
        "x/blend.json",
        folder=bench,
    )
    blend = files.read_json(bench / "x/blend.json")
    assert blend.keys() == {"train", "valid", "test"}
    for prefixes in blend.values():
        assert all((bench / f"{prefix}.bin").exists() for prefix in prefixes[1::2])


def test_conversations_from_rows_to_packs(bench):
    entry = MixtureSource.model_validate({"source": {"local": "chat.jsonl"}, "weight": 1})
    source = plain(entry, "weight") | {"reasoning": plain(Reasoning())}
    path = spec(bench, "render", {"max_dropped": 0.0}, **source, template=TEMPLATE)
    given = ("--sources", "cache", "--tokenizer", "d/tok.json", "--output", "d/render/chat.json")
    make("render", "--spec", path, *given, folder=bench)
    rendered = files.read_json(bench / "d/render/chat.json")
    assert rendered["rows"] == {"in": 40, "kept": 40, "dropped": {}}
    cut = {"pack_size": 64, "pad_multiple": 1, "valid_fraction": 0.1, "seed": 1}
    path = spec(bench, "pack", **cut, weights={"chat": 1.0})
    given = ("--rendered", "d/render/chat.json", "--output", "d/packed.json")
    make("pack", "--spec", path, *given, folder=bench)
    table = pyarrow.parquet.read_table(sorted((bench / "d/packed/train").iterdir())[0])
    assert table.column_names == ["input_ids", "loss_mask", "seq_start_id"]
    assert max(map(len, table["input_ids"].to_pylist())) <= 64
    path = spec(bench, "pack", **{"import": "d/packed"}, pack_size=64, pad_multiple=1)
    given = ("--rendered", "--tokenizer", "d/tok.json", "--output", "d/imported.json")
    make("pack", "--spec", path, *given, folder=bench)
    packed, imported = (files.read_json(bench / f"d/{n}.json") for n in ("packed", "imported"))
    assert packed["md5"] == imported["md5"] and imported["train"]["rows"] == len(table)


def test_prompts_from_rows_to_splits(bench):
    path = spec(
        bench, "resolve", kind="items", sources=[{"local": "text.jsonl"}], holdout=9, seed=1
    )
    make(
        "resolve", "--spec", path, "--sources", "cache", "--output", "d/prompts.json", folder=bench
    )
    content = files.read_json(bench / "d/prompts.json")
    assert (content["train"], content["validation"]) == (53, 9)
    assert len((bench / "d/prompts/validation.jsonl").read_text().splitlines()) == 9
