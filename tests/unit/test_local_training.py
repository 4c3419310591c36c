"""The local engine's training: exact resume after a kill, phases, divergence, users' mistakes."""

import json
import random
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import local_jobs
from local_jobs import TASKS, run_task
from nemoflow import checkpoint, divergence, metrics
from nemoflow.engines.local import grpo as grpo_module
from nemoflow.engines.local import loop
from nemoflow.engines.local.grpo import PolicyOptimization, grpo
from nemoflow.engines.local.pretrain import Pretraining, pretrain
from nemoflow.engines.local.rewards import REWARDS
from nemoflow.engines.local.rollout import sample
from nemoflow.engines.local.sft import sft
from nemoflow.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread", "reward_by_length")


def killed_at(task, progress, inputs, step):
    """Run a task whose process dies right after the update that finishes `step`."""
    trainer = TASKS[task][1]
    real = trainer.train_step

    def train_step(self, number, rate):
        found = real(self, number, rate)
        if number + 1 == step:
            local_jobs.kill_self()
        return found

    trainer.train_step = train_step
    run_task(task, progress, inputs)


@pytest.mark.parametrize("task", list(TASKS))
def test_a_killed_job_ends_in_the_same_bytes(task, inputs, tmp_path):
    steps = sorted(random.sample(range(1, 8), 2))
    assert local_jobs.in_process(run_task, task, tmp_path / "whole", inputs) == 0
    for step in steps:
        code = local_jobs.in_process(killed_at, task, tmp_path / "killed", inputs, step)
        assert code == -9, f"killed at {steps}"
    assert local_jobs.in_process(run_task, task, tmp_path / "killed", inputs) == 0
    for folder in (tmp_path / "whole", tmp_path / "killed"):
        metrics.curve(folder / "metrics.jsonl", folder / "curve.csv")
        (folder / "metrics.jsonl").unlink()
    whole = local_jobs.digests(tmp_path / "whole")
    assert local_jobs.digests(tmp_path / "killed") == whole, f"killed at {steps}"
    assert "final.json" in whole and sum("model.safetensors" in name for name in whole) == 2


@pytest.mark.parametrize("moment", ["sync_tree", "prune", "finish"])
def test_a_kill_while_saving_loses_nothing(moment, inputs, tmp_path, monkeypatch):
    run_task("pretrain", tmp_path / "whole", inputs)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, moment, local_jobs.kill_self)
        assert local_jobs.in_process(run_task, "pretrain", tmp_path / "killed", inputs) == -9
    assert run_task("pretrain", tmp_path / "killed", inputs) == 0
    last = [checkpoint.final(tmp_path / name) for name in ("whole", "killed")]
    assert local_jobs.digests(last[0]) == local_jobs.digests(last[1])
    assert [path.name for path in tmp_path.glob("killed/.*")] == []


def test_options_do_not_change_the_result(inputs, tmp_path):
    run_task("sft", tmp_path / "a", inputs)
    often = local_jobs.OPTIONS | {"save_every": 1, "log_every": 1}
    sft(local_jobs.job("sft", tmp_path / "b", inputs["sft"], options=often))
    last = [checkpoint.final(tmp_path / name) for name in ("a", "b")]
    assert local_jobs.digests(last[0]) == local_jobs.digests(last[1])


def test_a_finished_job_is_left_alone(inputs, tmp_path):
    run_task("sft", tmp_path, inputs, iterations=2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    run_task("sft", tmp_path, inputs, iterations=2)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_the_next_phase_continues_and_weights_alone_start_over(inputs, tmp_path):
    """Two phases of one blend are one training; `weights` forgets step and moments."""
    run_task("pretrain", tmp_path / "whole", inputs)
    run_task("pretrain", tmp_path / "one", inputs, stop_iteration=6)
    second = inputs["pretrain"] | {"init": str(tmp_path / "one/step_0000006")}
    phase = local_jobs.job("pretrain", tmp_path / "two", second, init="continue")
    assert pretrain(phase) == 0
    weights = [
        load_file(tmp_path / f"{name}/step_0000014/model.safetensors") for name in ("whole", "two")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    lines = metrics.read(tmp_path / "two/metrics.jsonl")
    assert lines[0]["step"] == 8 and lines[-1]["tokens"] == 14 * 4 * 32
    fresh = local_jobs.job("pretrain", tmp_path / "w", second, init="weights", stop_iteration=2)
    assert pretrain(fresh) == 0
    assert metrics.read(tmp_path / "w/metrics.jsonl")[-1]["step"] == 2


def test_a_phase_that_should_have_stopped_before_is_a_user_error(inputs, tmp_path):
    run_task("pretrain", tmp_path / "one", inputs, stop_iteration=6)
    second = inputs["pretrain"] | {"init": str(tmp_path / "one/step_0000006")}
    job = local_jobs.job("pretrain", tmp_path / "two", second, init="continue", stop_iteration=5)
    with pytest.raises(UserError, match="stop_iteration"):
        pretrain(job)


@pytest.mark.parametrize("how", ["spike", "nan"])
def test_divergence_stops_keeps_the_last_good_checkpoint_and_refuses_a_restart(
    how, inputs, tmp_path, monkeypatch, capsys
):
    real = Pretraining.train_step

    def train_step(self, number, rate):
        if number == 12:
            update = self.optimizer.update
            factor = {"spike": 100.0, "nan": float("nan")}[how]
            monkeypatch.setattr(
                self.optimizer, "update", lambda loss, rate: update(loss * factor, rate)
            )
        return real(self, number, rate)

    monkeypatch.setattr(Pretraining, "train_step", train_step)
    assert run_task("pretrain", tmp_path, inputs) == 3
    stopped = json.loads((tmp_path / "stopped.json").read_text())
    assert stopped["step"] == 13 and stopped["checkpoint"] == "step_0000012"
    assert "stopped at step 13" in capsys.readouterr().err
    good = load_file(tmp_path / "step_0000012/model.safetensors")
    assert all(tensor.isfinite().all() for tensor in good.values())
    with pytest.raises(UserError, match=r"step 13 .* Removing .*stopped.json tries again"):
        run_task("pretrain", tmp_path, inputs)
    monkeypatch.setattr(Pretraining, "train_step", real)
    (tmp_path / "stopped.json").unlink()
    assert run_task("pretrain", tmp_path, inputs) == 0


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(inputs, tmp_path):
    trainer = Pretraining(local_jobs.job("pretrain", tmp_path, inputs["pretrain"]))
    before = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    for parameter in trainer.network.parameters():
        parameter.grad = torch.full_like(parameter, float("inf"))
    with pytest.raises(divergence.Diverged, match="not finite"):
        trainer.optimizer.update(1.0, 1e-3)
    assert all(torch.equal(before[name], p) for name, p in trainer.network.named_parameters())


def test_pretraining_lowers_the_loss(inputs, tmp_path):
    run_task(
        "pretrain",
        tmp_path,
        inputs,
        stop_iteration=60,
        schedule=local_jobs.SCHEDULE | {"end_iteration": 60},
    )
    lines = metrics.read(tmp_path / "metrics.jsonl")
    assert lines[-1]["loss"] < lines[0]["loss"] - 1
    assert lines[-1]["mtp_loss"] < lines[0]["mtp_loss"]
    assert lines[-1]["valid_loss/news"] < 4
    assert {"step", "lr", "grad_norm", "tokens", "tokens_per_second", "seconds"} <= set(lines[0])


def test_fine_tuning_counts_packed_rows_and_ignores_micro_batches(inputs, tmp_path):
    losses = []
    for micro in (1, 4):
        batch = local_jobs.BATCH | {"micro": micro}
        run_task("sft", tmp_path / str(micro), inputs, batch=batch, iterations=2)
        losses.append(metrics.read(tmp_path / f"{micro}/metrics.jsonl")[-1])
    assert losses[0]["loss"] == pytest.approx(losses[1]["loss"], rel=1e-4)
    assert losses[0]["tokens"] == 2 * 4 * 10


def test_rl_earns_the_reward_leaves_mtp_alone_and_reports(inputs, tmp_path, monkeypatch):
    monkeypatch.setitem(REWARDS, "boxed_math", lambda row, text: float("a" in text))
    schedule = local_jobs.SCHEDULE | {"style": "constant", "peak": 1e-2}
    run_task(
        "rl", tmp_path, inputs, iterations=25, schedule=schedule, prompts_per_step=8, minibatches=1
    )
    lines = metrics.read(tmp_path / "metrics.jsonl")
    assert lines[-1]["reward"] > lines[0]["reward"] + 0.2
    assert {"kept_groups", "completion_tokens"} <= set(lines[0])
    before = load_file(f"{inputs['rl']['init']}/model.safetensors")
    after = load_file(checkpoint.final(tmp_path) / "model.safetensors")
    assert before.keys() == after.keys()
    for name in before:
        assert not name.startswith("mtp.") or torch.equal(before[name], after[name])


def test_kl_costs_nothing_at_the_start_and_more_further_away(inputs, tmp_path):
    job = local_jobs.job("rl", tmp_path, inputs["rl"], kl=0.5)
    trainer = PolicyOptimization(job)
    loop.resume(job, trainer)
    encoded = trainer.encode(trainer.chosen(0))
    generator = torch.Generator().manual_seed(0)
    rollouts = sample(trainer.network, *encoded.values(), 4, 4, 1.0, -1, generator)
    found = []
    with torch.no_grad():
        for moved in (False, True):
            if moved:
                trainer.network.lm_head.weight[:50] += 0.3
            both = []
            for trainer.config["kl"] in (0.0, 0.5):
                both.append(float(trainer.policy_loss(rollouts, torch.zeros(16))))
            found.append(both)
    assert found[0] == pytest.approx([0, 0], abs=1e-6)
    assert found[1][0] == pytest.approx(0, abs=1e-6) and found[1][1] > 1e-4


def test_users_mistakes_are_told(inputs, tmp_path):
    empty = tmp_path / "empty.json"
    empty.write_text('{"train": [], "valid": [], "test": []}')
    (tmp_path / "none/train").mkdir(parents=True)
    small = local_jobs.MODEL | {"vocab_size": 50}
    short = local_jobs.MODEL | {"max_positions": 8}
    other = local_jobs.prompts(tmp_path, agent="swe")
    cases = [
        (pretrain, "pretrain", {"blend": str(empty)}, {}, "no training data"),
        (pretrain, "pretrain", inputs["pretrain"], {"model": small}, "vocab_size: 50"),
        (sft, "sft", inputs["sft"] | {"data": str(tmp_path / "none")}, {}, "no packed rows"),
        (sft, "sft", inputs["sft"], {"model": small}, "do not fit"),
        (grpo, "rl", inputs["rl"], {"model": short}, "max_positions"),
        (grpo, "rl", inputs["rl"] | {"prompts": other}, {}, "agent_ref 'swe'"),
        (grpo, "rl", inputs["rl"] | {"prompts": str(tmp_path)}, {}, "no prompts"),
        (grpo, "rl", inputs["rl"], {"algorithm": "dpo"}, "algorithm"),
    ]
    for number, (task, kind, given, config, message) in enumerate(cases):
        job = local_jobs.job(kind, tmp_path / f"case{number}", given, **config)
        with pytest.raises(UserError, match=message):
            task(job)


def test_prompts_of_a_step_follow_from_the_step_alone(inputs, tmp_path):
    trainer = grpo_module.PolicyOptimization(local_jobs.job("rl", tmp_path, inputs["rl"]))
    epoch = [row["expected_answer"] for step in range(5) for row in trainer.chosen(step)]
    assert len(epoch) == 20 and sorted(epoch[:10]) == sorted(epoch[10:])
    assert [row["expected_answer"] for row in trainer.chosen(3)] == epoch[12:16]


def test_the_command_tells_a_users_mistake_without_a_traceback(inputs, tmp_path):
    job = local_jobs.job(
        "pretrain", tmp_path, inputs["pretrain"], model={**local_jobs.MODEL, "layers": 9}
    )
    told = {**vars(job), "progress": str(job.progress)}
    (tmp_path / "job.json").write_text(json.dumps(told))
    command = [sys.executable, "-m", "nemoflow.engines.local", str(tmp_path / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: model.layers: 9") and "Traceback" not in done.stderr


def test_nothing_continues_from_a_model_without_an_optimizer(inputs, tmp_path):
    given = {**inputs["pretrain"], "init": inputs["rl"]["init"]}
    with pytest.raises(UserError, match="no optimizer there to continue with; set init: weights"):
        pretrain(local_jobs.job("pretrain", tmp_path / "p", given, init="continue"))
