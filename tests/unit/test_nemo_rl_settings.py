"""NeMo-RL's config of each released step, key by key, against the recipe's own files.

tests/data/nemo_rl/RUN-STEP.json are the step files of github.com/NVIDIA-NeMo/Nemotron
(src/nemotron/recipes/{super3,nano3}/stage2_rl), dotted and resolved by OmegaConf, without the
launcher's section `run` and without one prompt text, which is NeMo-Gym's own default.
"""

import json
from pathlib import Path

import pytest

from nemo_rl_steps import NODES, generated, told_of
from nemoflow.engines.nemo_rl import settings
from nemoflow.errors import UserError

DATA = Path(__file__).parents[1] / "data" / "nemo_rl"
GYM = "env.nemo_gym"
SERVER = "responses_api_models.vllm_model"
PLUGIN = "policy.generation.vllm_cfg.http_server_serving_chat_kwargs.reasoning_parser_plugin"

# Every difference, and why. Where a value is told, ours is that and nothing else; `...` is any.
EVERYWHERE = {
    "policy.model_name": ("MODEL", "a placeholder there; ours is the export before it"),
    "policy.tokenizer.name": ("MODEL", "the export brings its tokenizer"),
    "checkpointing.checkpoint_dir": ("WORK", "below progress/"),
    "checkpointing.keep_top_k": (2, "all of them there, 1.7 TB each; options.keep"),
    "checkpointing.metric_name": (None, "the last checkpoint is the product, not the best"),
    "grpo.max_num_steps": (..., "a million there, so that only a person ends an asynchronous step"),
    "logger.log_dir": ("WORK/logs", "below progress/"),
    "logger.tensorboard_enabled": (True, "the curve is read from it"),
    "logger.monitor_gpus": (False, "nobody reads it"),
    "logger.wandb": ({}, "no account of any service"),
    "logger.wandb.name": ("-", "as above"),
    "logger.wandb.project": ("-", "as above"),
    "logger.mlflow.experiment_name": ("-", "as above"),
    "logger.mlflow.run_name": ("-", "as above"),
}
SUPER = EVERYWHERE | {
    PLUGIN: ("/opt/nemo-rl/nemo_rl/utils/nano_v3_reasoning_parser.py", "workers start elsewhere"),
    "data.train.repeat": (..., "an asynchronous step reads its file once and then waits for ever"),
}
RLVR = SUPER | {
    "grpo.num_val_generations_per_prompt": (1, "it never validates (val_period -1)"),
    "grpo.invalid_tool_call_strategy": (None, "named; the same as not there"),
    f"{GYM}.safety_judge_model.{SERVER}.base_url": (..., "NeMo-Gym puts the real one there"),
    f"{GYM}.nl2bash_judge_model.{SERVER}.base_url": (..., "as above"),
    f"{GYM}.terminal_pivot_simple_agent.responses_api_agents.simple_agent.model_server.name": (
        "-",
        "the environment's own file says the same",
    ),
    **{
        f"{GYM}.{server}.judge_model_server.{key}": (value, "as above")
        for server, key, value in (
            ("math_with_judge.resources_servers.math_with_judge", "type", "responses_api_models"),
            ("lc_judge.resources_servers.equivalence_llm_judge", "type", "responses_api_models"),
            (
                "equivalence_llm_judge.resources_servers.equivalence_llm_judge",
                "type",
                "responses_api_models",
            ),
            (
                "over_refusal_detection.resources_servers.over_refusal_detection",
                "type",
                "responses_api_models",
            ),
            (
                "over_refusal_detection.resources_servers.over_refusal_detection",
                "name",
                "safety_judge_model",
            ),
        )
    },
}
DIFFERENCES = {
    "super3-rlvr1": RLVR,
    "super3-swe1": SUPER,
    "super3-swe2": SUPER
    | {
        "grpo.invalid_tool_call_strategy": (None, "empty there: none"),
        "sif_dir": ("-", "the images are named by their whole paths"),
    },
    "super3-rlhf": SUPER
    | {
        "grpo.invalid_tool_call_strategy": (None, "named; the same as not there"),
        f"{GYM}.genrm_model.{SERVER}.model": (
            "nvidia/Qwen3-Nemotron-235B-A22B-GenRM-2603",
            "a placeholder there; rlvr's",
        ),
    },
    "nano3-rlvr": EVERYWHERE
    | {
        "data.train_jsonl_fpath": ("TRAIN", "a placeholder there"),
        "data.validation_jsonl_fpath": ("VALIDATION", "a placeholder there"),
        "policy.generation.vllm_cfg.async_engine": (
            True,
            "nano-v3 refuses to use NeMo-Gym without (grpo.py, _should_use_nemo_gym)",
        ),
        "grpo.async_grpo.in_flight_weight_updates": (False, "named; the branch's default"),
    },
}


@pytest.fixture(autouse=True)
def sandboxes(monkeypatch):
    monkeypatch.setenv("NEMOFLOW_SANDBOXES", "/path/to/sif")


@pytest.mark.parametrize("name", DIFFERENCES)
def test_released_step(name):
    wanted, found = json.loads((DATA / f"{name}.json").read_text()), generated(*name.split("-"))
    different = {
        key: found.get(key, "-")
        for key in wanted.keys() | found.keys()
        if wanted.get(key, "-") != found.get(key, "-")
    }
    allowed = DIFFERENCES[name]
    assert different.keys() == allowed.keys()
    told = {key: value for key, (value, _) in allowed.items() if value is not ...}
    assert {key: different[key] for key in told} == told


@pytest.mark.parametrize("step", ["rlvr2", "rlvr3"])
def test_the_other_steps_of_rlvr_are_the_first_on_other_prompts(step):
    assert generated("super3", step) == generated("super3", "rlvr1")


def test_nano3s_rlhf_is_super3s_on_nano3s_rollouts():
    """The report (section 12.3 of the recipes' facts) names GenRM, comparison and length control;
    the numbers are super3's, batch and sizes nano3's own."""
    ours, supers = generated("nano3", "rlhf"), generated("super3", "rlhf")
    assert {k: v for k, v in ours.items() if k.startswith(GYM)} == {
        k: v for k, v in supers.items() if k.startswith(GYM)
    }
    same = ("loss_fn.reference_policy_kl_penalty", "grpo.num_generations_per_prompt")
    assert [ours[key] for key in same] == [1e-4, 16]
    assert ours["policy.megatron_cfg.optimizer.lr"] == 1e-6
    assert (ours["grpo.num_prompts_per_step"], ours["policy.train_global_batch_size"]) == (
        128,
        2048,
    )
    assert ours["env.use_genrm_compare"] and not ours["grpo.async_grpo.enabled"]
    assert ours["policy.generation.colocated.enabled"]
    assert (ours["cluster.num_nodes"], ours[f"{GYM}.num_gpu_nodes"]) == (40, 8)


def test_dpo_of_nano3():
    """LR 3e-6, batches of 128 pairs, 50 steps (section 12.3 of the recipes' facts)."""
    found = generated("nano3", "dpo")
    wanted = {
        "dpo.max_num_steps": 50,
        "dpo.reference_policy_kl_penalty": 0.05,
        "dpo.preference_loss_weight": 1.0,
        "dpo.sft_loss_weight": 0.2,
        "dpo.seed": 42,
        "policy.train_global_batch_size": 128,
        "policy.megatron_cfg.optimizer.lr": 3e-6,
        "policy.megatron_cfg.optimizer.min_lr": 3e-6,
        "policy.megatron_cfg.scheduler.lr_warmup_iters": 0,
        "policy.sequence_packing.enabled": False,
        "policy.megatron_cfg.context_parallel_size": 1,
        "data.dataset_name": "PreferenceDataset",
        "data.train_data_path": "TRAIN",
        "checkpointing.save_period": 10,
    }
    assert {key: found[key] for key in wanted} == wanted
    assert not [
        key for key in found if key.startswith(("grpo", "loss_fn", "env", "policy.generation."))
    ]
    # dpo.py doubles every key of the scheduler that has iters in its name: null would fail there.
    assert "policy.megatron_cfg.scheduler.lr_decay_iters" not in found


@pytest.mark.parametrize(("run", "step"), NODES)
def test_at_least_what_decides_a_result_is_said(run, step):
    found = generated(run, step)
    assert found["policy.megatron_cfg.freeze_moe_router"] is True
    assert found["policy.megatron_cfg.activation_checkpointing"] is True
    assert len(found) > 100
    assert not [key for key, value in found.items() if isinstance(value, str) and "${" in value]


def test_a_step_ends_with_its_epochs():
    told, _ = told_of("super3", "rlvr1")
    assert settings.steps(told, 1000) == 3  # 1,000 // 256, the last smaller batch is dropped
    assert settings.steps({**told, "epochs": 4}, 1000) == 12
    assert settings.steps({**told, "iterations": 2}, 1000) == 2
    with pytest.raises(UserError, match="there are only 100 prompts"):
        settings.steps(told, 100)


def test_an_asynchronous_step_has_prompts_to_spare():
    found = generated("super3", "swe1", rows=1000)
    assert found["grpo.max_num_steps"] == 100 * (1000 // 64)
    assert found["data.train.repeat"] * 1000 >= found["grpo.max_num_steps"] * 64 + 1000
    with pytest.raises(UserError, match="asynchronous"):
        generated("super3", "swe1", release="v0.5.0")


def test_several_updates_per_batch_are_off_policy():
    found = generated("super3", "rlvr1", minibatches=4)
    assert found["policy.train_global_batch_size"] == 1024
    assert found["loss_fn.force_on_policy_ratio"] is False


def test_without_validation_rows_there_is_no_validation_file():
    assert "data.validation.data_path" not in generated("super3", "rlvr1", validation=None)
