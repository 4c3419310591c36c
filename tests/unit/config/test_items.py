"""Where the items lie that training rows are kept apart from, and what the recipes say of it."""

import importlib.util
import re
from pathlib import Path

import pytest

from nemoflow import specs
from nemoflow.config import Config
from nemoflow.errors import UserError
from small_config import with_runs

CONFIG = Config(Path(__file__).parents[3] / "config")
PROBLEMS = "extends: super3-tiny\nrl: {steps: {rlvr1: {prompts: mine}}}"


def identity(folder, **overrides):
    told = ",".join(f"{key}={value}" for key, value in overrides.items())
    return specs.of(Config(folder, told or None), "resolve", {"prompts": "mine"}).identity


def test_the_items_and_not_the_name_of_a_task_are_in_the_spec(config_folder):
    path = config_folder / "prompts/mine.yaml"
    path.write_text("sources: [{local: rows}]\napart_from: [mmlu, micro_facts]\n")
    found = identity(config_folder)["apart_from"]
    assert found["mmlu"]["text_field"] == "question"
    assert found["mmlu"]["sources"][0]["hub"] == "cais/mmlu"
    facts = {"builtin": "fact_choices", "seed": 4, "count": 12, "split": "validation"}
    assert found["micro_facts"] == {"sources": [facts]}
    task = config_folder / "tasks/mmlu.yaml"
    scored = {"run": "super3", "stage": "rl", "task": "mmlu"}
    before = specs.of(Config(config_folder), "eval_task", scored).name
    task.write_text(task.read_text().replace("text_field: question", "text_field: choices"))
    assert identity(config_folder)["apart_from"]["mmlu"]["text_field"] == "choices"
    assert specs.of(Config(config_folder), "eval_task", scored).name == before
    task.write_text(task.read_text().replace("fewshot: 5", "fewshot: 4"))
    assert identity(config_folder)["apart_from"] != found  # as changed above, no more
    assert specs.of(Config(config_folder), "eval_task", scored).name != before


def test_a_set_may_be_kept_apart_from_its_own_validation(config_folder):
    path = config_folder / "prompts/micro-problems.yaml"
    path.write_text(path.read_text() + "apart_from: [micro_arithmetic]\n")
    found = specs.of(Config(config_folder), "resolve", {"prompts": "micro-problems"}).identity
    assert found["apart_from"]["micro_arithmetic"]["sources"][0]["split"] == "validation"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("mmlo", "there is no task mmlo; did you mean mmlu?"),
        ("silent", "task silent does not say where its items lie; set items"),
        ("held", "prompts held has no validation, and what its holdout chooses"),
    ],
)
def test_items_that_nobody_can_find_are_told_before_any_job(config_folder, task, message):
    (config_folder / "prompts/mine.yaml").write_text(
        f"sources: [{{local: rows}}]\napart_from: [{task}]\n"
    )
    (config_folder / "prompts/held.yaml").write_text("sources: [{local: rows}]\nholdout: 5\n")
    (config_folder / "tasks/silent.yaml").write_text("harness: piqa\nmetric: acc,none\n")
    (config_folder / "tasks/held.yaml").write_text("harness: {}\nprompts: held\nmetric: acc,none\n")
    config = with_runs(config_folder, child=PROBLEMS)
    with pytest.raises(UserError, match=rf"config/prompts/mine\.yaml:2: apart_from: .*{message}"):
        config.run("child")


def test_a_task_of_ours_has_its_items_in_its_prompts(config_folder):
    path = config_folder / "tasks/micro_facts.yaml"
    path.write_text(path.read_text() + "items: {source: {local: x}, text_field: stem}\n")
    with pytest.raises(UserError, match="those of a task of ours are in its prompts"):
        Config(config_folder).data("tasks", "micro_facts")


def test_external_sets_and_items_say_a_revision():
    sets = [CONFIG.data("prompts", name).external for name in CONFIG.names("prompts")]
    sources = [external.source for each in sets for external in each.values()]
    tasks = [CONFIG.data("tasks", name).items for name in CONFIG.names("tasks")]
    sources += [items.source for items in tasks if items]
    assert len(sources) == 13 and all(source.revision for source in sources)


@pytest.mark.parametrize("name", ["super3-rlvr1", "super3-rlvr2", "super3-rlvr3", "nano3-rlvr"])
def test_sets_that_rows_of_rlvr_stand_for(name):
    prefix = name.partition("-")[0]
    names = {
        "super3": ("super_v3_lcsft_step1000_dapo17k", "super_v3_lcsft_step1000_skyworks"),
        "nano3": ("nano_v3_sft_profiled_dapo17k", "nano_v3_sft_profiled_skywork_no_omni"),
    }[prefix]
    sets = CONFIG.data("prompts", name).external
    assert tuple(sets) == names
    dapo, skywork = sets.values()
    assert (dapo.style, dapo.source.hub) == ("dapo", "BytedTsinghua-SIA/DAPO-Math-17k")
    assert (skywork.style, skywork.source.split) == ("skywork", "math")
    assert skywork.source.hub == "Skywork/Skywork-OR1-RL-Data"
    assert {(e.question, e.answer) for e in sets.values()} == {
        ("prompt.0.content", "reward_model.ground_truth")
    }


def test_prompts_are_kept_apart_from_what_a_run_is_scored_on():
    for run in map(CONFIG.run, ("super3", "nano3")):
        for step in ("rlvr1", "rlvr2", "rlvr3", "rlvr", "rlhf"):
            if step in run.rl.steps:
                rows = CONFIG.data("prompts", run.rl.steps[step].prompts)
                assert set(rows.apart_from) == set(run.eval.tasks), step


@pytest.mark.parametrize("name", ["mmlu", "arc_challenge", "hellaswag", "openbookqa", "winogrande"])
def test_items_are_where_the_harness_has_them(name):
    task = CONFIG.data("tasks", name)
    tasks = Path(importlib.util.find_spec("lm_eval").origin).parent / "tasks"
    file = {
        "mmlu": "mmlu/default/_default_template_yaml",
        "arc_challenge": "arc/arc_challenge_chat.yaml",
        "hellaswag": "hellaswag/hellaswag.yaml",
        "openbookqa": "openbookqa/openbookqa.yaml",
        "winogrande": "winogrande/default.yaml",
    }[name]
    told = dict(re.findall(r"^(\w+): (\S+)$", (tasks / file).read_text(), re.M))
    assert task.items.source.hub == told["dataset_path"]
    named = told.get("dataset_name", "all")
    assert (task.items.source.subset or "null") == named
    held = told["test_split"] if told.get("test_split", "null") != "null" else "validation"
    assert task.items.source.split == held
