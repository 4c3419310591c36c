"""What DVC tells of two commits through the dvc.yaml that is written here."""

from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

import small_config
from nemoflow import dvc_yaml
from nemoflow.files import write_json, write_whole
from repository import commit_all

CURVES = {
    "results/micro/pretrain/phase1/curve.csv": "loss",
    "results/micro/rl/rlvr1/curve.csv": "reward",
    "results/micro/sft/curve.csv": "loss",
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A checkout with config and results of the run micro."""
    monkeypatch.chdir(tmp_path)
    small_config.make(tmp_path)
    put_results(0.25)


def put_results(value: float) -> None:
    stages = {"sft": {"micro_facts": {"metric": "acc,none", "value": value, "stderr": 0.1, "n": 9}}}
    write_json("results/micro/eval.json", {"run": "micro", "stages": stages, "models": {}})
    for path, column in CURVES.items():
        rows = "".join(f"{step},{value * step},1.0\n" for step in (1, 2))
        write_whole(path, f"step,{column},lr\n{rows}")


def written() -> dict:
    assert dvc_yaml.write_dvc_yaml()
    return yaml.safe_load(Path("dvc.yaml").read_text())


def test_dvc_compares_params_metrics_and_curves_of_two_commits(tmp_path):
    commit_all()
    Repo.init(".").close()
    assert dvc_yaml.write_dvc_yaml()
    commit_all()
    run = Path("config/micro.yaml")
    run.write_text(run.read_text().replace("  iterations: 12", "  iterations: 24"))
    put_results(0.5)
    assert not dvc_yaml.write_dvc_yaml()  # it follows from names alone
    commit_all()
    with Repo(".") as repo:
        (params,) = repo.params.diff("HEAD~1", "HEAD")["diff"].items()
        assert params == (
            "config/micro.yaml", {"sft.iterations": {"old": 12, "new": 24, "diff": 12}}
        )  # fmt: skip
        changed = repo.metrics.diff("HEAD~1", "HEAD")["diff"]["results/micro/eval.json"]
        assert changed == {"stages.sft.micro_facts.value": {"old": 0.25, "new": 0.5, "diff": 0.25}}
        for revision, value in (("HEAD~1", 0.25), ("HEAD", 0.5)):
            sources = repo.plots.show(revs=[revision])[revision]["sources"]["data"]
            assert sources.keys() == CURVES.keys()
            for path, column in CURVES.items():
                assert sources[path]["data"][1] == {
                    "step": "2", column: str(2 * value), "lr": "1.0"
                }  # fmt: skip


def test_every_file_that_a_run_is_made_of_is_a_param():
    params = written()["params"]
    assert params == sorted(params) and all(Path(path).is_file() for path in params)
    named = "blends/micro-phase2 corpora/micro-facts mixtures/micro prompts/micro-facts"
    others = "tokenizers/micro tasks/micro_facts"
    for name in ("micro", "super3-tiny", "super3", *named.split(), *others.split()):
        assert f"config/{name}.yaml" in params
    assert not any("nano3" in path for path in params)


def test_curves_are_drawn_by_what_their_stage_is_to_change():
    assert written()["plots"] == [
        {path: {"x": "step", "y": column}} for path, column in CURVES.items()
    ]


def test_a_run_whose_config_is_gone_keeps_its_scores():
    write_json("results/old/eval.json", {"run": "old", "stages": {}, "models": {}})
    write_whole("results/old/sft/curve.csv", "step,loss\n")
    found = written()
    assert found["metrics"] == ["results/micro/eval.json", "results/old/eval.json"]
    assert {"results/old/sft/curve.csv": {"x": "step", "y": "loss"}} in found["plots"]


def test_curves_of_a_parent_count_those_of_other_runs_and_work_in_progress_do_not():
    write_json("results/base/sft/checkpoint.json", {"identity": {}, "inputs": {}})
    write_whole("results/base/sft/curve.csv", "step,loss\n")
    write_whole("results/begun/sft/curve.csv", "step,loss\n")
    write_whole("results/micro/sft/progress/curve.csv", "step,loss\n")
    inputs = {"results/base/sft/checkpoint.json": None}
    write_json("provenance/builds/results/micro/eval.json.json", {"inputs": inputs})
    assert [next(iter(plot)) for plot in written()["plots"]] == [
        "results/base/sft/curve.csv", *CURVES,
    ]  # fmt: skip


def test_a_dvc_yaml_of_the_user_is_left_alone(capfd):
    Path("dvc.yaml").write_text("stages: {}\n")
    assert not dvc_yaml.write_dvc_yaml()
    assert "dvc.yaml: not written by nemoflow" in capfd.readouterr().err
    assert Path("dvc.yaml").read_text() == "stages: {}\n"


def test_without_results_there_is_nothing_to_compare():
    Path("results/micro/eval.json").unlink()
    assert written() == {"params": [], "metrics": [], "plots": []}
