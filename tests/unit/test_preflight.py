"""The GPU jobs of a run and of a DAG: found, estimated, refused."""

import shutil
from pathlib import Path

import pytest

from nemoflow import bridge, forecast, preflight
from nemoflow.errors import UserError
from nemoflow.files import write_json
from nemoflow.profile import Profile
from small_config import with_runs

ROOT = Path(__file__).parents[2]
PROFILES = ROOT / "profiles"
GPUS = {"nodes": 96, "gres": "gpu:8", "tasks_per_node": 8}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder with the list of images alone, no Megatron-Bridge, no site."""
    monkeypatch.setenv(bridge.PYTHON, "/nowhere")
    (tmp_path / "envs").mkdir()
    shutil.copy(ROOT / "envs/images.yaml", tmp_path / "envs")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def b200():
    return Profile(PROFILES / "b200")


def check(config, rule, wildcards, resources, made=()):
    hardware = Profile(PROFILES / "b200").hardware
    preflight.check(config, [(rule, wildcards, resources, 12)], hardware, made)


def test_the_jobs_of_a_run_are_its_stages_exports_and_scores(config, b200):
    titles = [job.title for job in preflight.jobs(config, "nano3", b200)]
    assert titles[:5] == [
        "pretrain.phase1", "pretrain.phase2", "pretrain.long_context", "sft", "rl.rlvr",
    ]  # fmt: skip
    assert [title for title in titles if title.startswith("export")] == [
        "export pretrain", "export sft", "export rl", "export rl.rlvr",
    ]  # fmt: skip
    assert titles.count("eval_task sft mmlu") == 1 and len(titles) == 7 + 4 + 15
    assert preflight.jobs(config, "micro", b200) == []


def test_an_experiment_pays_for_its_own_stages_only(config_folder, b200):
    config = with_runs(config_folder, nano3_lr="extends: nano3\nstart: rl.rlhf\n")
    trained = [job.title for job in preflight.jobs(config, "nano3-lr", b200) if job.trains]
    assert trained == ["rl.rlhf", "rl.dpo"]


def test_a_continued_phase_counts_its_own_tokens(config, b200):
    jobs = {job.title: job for job in preflight.jobs(config, "super3", b200)}
    first, second = (preflight.estimate(config, jobs[f"pretrain.phase{n}"]) for n in (1, 2))
    assert first.tokens == pytest.approx(20e12, rel=1e-5)
    assert second.tokens == pytest.approx(5e12, rel=1e-5)


def test_rows_are_counted_once_they_are_there(config, b200):
    job = next(job for job in preflight.jobs(config, "super3", b200) if job.title == "rl.rlvr1")
    assumed = preflight.estimate(config, job)
    write_json("results/data/prompts/super3-rlvr1.json", {"train": 40000})
    counted = preflight.estimate(config, job)
    assert (assumed.assumed, counted.assumed) == (True, False)
    assert counted.tokens == pytest.approx(2 * assumed.tokens, rel=0.02)


def test_a_plan_tells_the_cost_of_its_jobs(config):
    jobs = [("sft", {"run": "super3"}), ("sft", {"run": "micro"}), ("blend", {"run": "super3"})]
    (told,) = forecast.costs(config, jobs, str(PROFILES / "b200"))
    assert told.startswith("1 jobs of the cluster's engines: 4,2") and "1.73TB" in told
    assert list(forecast.costs(config, jobs[1:], "nowhere")) == []


def test_jobs_that_outlast_their_attempts_are_told(config, b200):
    jobs = preflight.jobs(config, "super3", b200)
    rows = forecast.rows(config, jobs, {job.title: [] for job in jobs})
    told = "\n".join(forecast.shortfalls(rows, b200))
    assert "rl.swe2 takes about" in told and "phase1" not in told


def test_a_job_of_a_dag_is_checked_with_the_resources_it_gets(config):
    phase = {"run": "super3", "phase": "phase1"}
    check(config, "pretrain", phase, GPUS)
    with pytest.raises(UserError, match=r"phase1.batch.global: 3072 is no multiple of"):
        check(config, "pretrain", phase, {**GPUS, "nodes": 95})
    with pytest.raises(UserError, match=r"resources of rule rl \(super3, swe1\): nodes=4: 4 gen"):
        check(
            config, "rl", {"run": "super3", "step": "swe1"},
            {"nodes": 4, "gres": "gpu:8", "generate_nodes": 4},
        )  # fmt: skip


def test_a_job_whose_image_is_nowhere_is_not_submitted(config, monkeypatch):
    monkeypatch.setenv("NEMOFLOW_CONTAINERS", "pyxis")
    task = {"run": "super3", "stage": "sft", "task": "mmlu"}
    with pytest.raises(UserError, match="images.eval.reference is not set"):
        check(config, "eval_task", task, GPUS | {"nodes": 1})


def test_jobs_of_the_local_engine_are_left_alone(config):
    check(config, "sft", {"run": "micro"}, {"nodes": 1, "gres": ""})


def test_an_export_must_fit_its_gpus(config):
    with pytest.raises(UserError, match="its weights are 247 GB on each of 1 GPUs of rule export"):
        check(config, "export", {"run": "super3", "stage": "sft"}, {"nodes": 1, "gres": "gpu:1"})


def test_shards_that_a_blend_lists_must_be_there(config):
    phase, blend = {"run": "super3", "phase": "phase1"}, "results/super3/pretrain/phase1/blend.json"
    write_json(blend, {"train": ["0.5", "tokens/a/x", "0.5", "tokens/b/x"]})
    check(config, "pretrain", phase, GPUS)  # nothing is there: the job pulls it
    Path("tokens/a").mkdir(parents=True)
    Path("tokens/a/x.bin").touch()
    with pytest.raises(UserError, match="blend.json: lists tokens/a/x, but there is no .*x.idx"):
        check(config, "pretrain", phase, GPUS)
    check(config, "pretrain", phase, GPUS, made=[blend])  # the DAG makes a new blend


def test_packed_rows_must_be_there(config):
    Path("results/data/packed/super3/train").mkdir(parents=True)
    given = ("sft", {"run": "super3"}, {**GPUS, "nodes": 32})
    with pytest.raises(UserError, match="packed/super3/train: no Parquet file there, but sft.mix"):
        check(config, *given)
    Path("results/data/packed/super3/train/a.parquet").touch()
    check(config, *given)


def test_a_disk_too_small_is_a_warning(config, capsys, monkeypatch):
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: type("", (), {"free": 10**12}))
    check(config, "pretrain", {"run": "super3", "phase": "phase1"}, GPUS)
    assert "keep about 5.19TB of checkpoints, results/ has 1.00TB free" in capsys.readouterr().err


def test_what_megatron_bridge_says_stands_at_the_keys_place(config, b200, monkeypatch):
    told = [{"key": "sft.batch.micro", "message": "should be 1"}]
    monkeypatch.setattr(bridge, "python", lambda: "python")
    monkeypatch.setattr(bridge, "problems", lambda items, _: {i["key"]: told for i in items})
    jobs = [job for job in preflight.jobs(config, "super3", b200) if job.title == "sft"]
    assert preflight.item(config, jobs[0])["machine"]["nodes"] == 32
    (text,) = preflight.problems(config, jobs)["sft"]
    assert text.startswith("config/super3.yaml:") and text.endswith("sft.batch.micro: should be 1")
