"""The table of a set of prompts: environments, before and after."""

from nemoflow import manifest, specs
from nemoflow.config import Config
from nemoflow.prompts_table import lines
from small_prompts import placeholder, resolve, row, write

PATHS = {"question": "q", "answer": "a"}


def test_a_set_that_is_built(config_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (config_folder / "prompts/mine.yaml").write_text(
        "about: Mine\nsources: [{local: rows}]\nholdout: 2\n"
        "gaps: {proofs: {weight: 0.5, why: not published}}\n"
    )
    config = Config(config_folder)
    assert list(lines(config, "mine")) == [
        "prompts mine are not built; build them:",
        "  snakemake --profile profiles/local results/data/prompts/mine.json",
    ]
    rows = [row(number, "code", level=1) for number in range(1200)]
    rows += [placeholder(0, "set", level=4), row(1, "math"), row(-1, level=2)]
    source = write(tmp_path / "set.jsonl", [{"q": "two?", "a": "2"}])
    quiz = write(tmp_path / "quiz.jsonl", [{"text": "Question, 5!"}])
    told = resolve(
        tmp_path / "made", rows, holdout=20, difficulty="level", max_dropped=0.1,
        external={"set": {"source": source, "style": "dapo", **PATHS}},
        apart_from={"quiz": {"sources": [quiz], "text_field": "text"}},
    )  # fmt: skip
    identity = specs.of(config, "resolve", {"prompts": "mine"}).identity
    manifest.write("results/data/prompts/mine.json", identity, **told)
    assert list(lines(config, "mine")) == [
        "mine: Mine",
        "",
        "environment      rows in  dropped  items of tasks  train  validation",
        "code               1,200        0               1  1,179          20",
        "boxed_math             1        0               0      1           0",
        "math                   1        1               0      0           0",
        "math_with_judge        1        0               0      1           0",
        "in all             1,203        1               1  1,181          20",
        "",
        "dropped: 1 no_difficulty",
        "apart from quiz: 1 texts, 1 rows dropped",
        "of set: 1 rows",
        "difficulty (level): min 1, mean 1.00339, max 4",
        "! nothing in validation of boxed_math, math_with_judge",
        "gap: proofs: not published",
    ]
    other = Config(config_folder, overrides="prompts.mine.holdout=3")
    assert list(lines(other, "mine"))[-1] == "built from another config; to be made again"
