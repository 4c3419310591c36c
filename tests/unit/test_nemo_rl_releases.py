"""What our keys become in each release of NeMo-RL, and the keys that it does not know."""

import pytest

import nemo_rl_stand_in
from nemo_rl_steps import generated, told_of
from nemoflow.engines.nemo_rl import fits, releases
from nemoflow.errors import UserError
from nemoflow.machine import Machine

GYM = "env.nemo_gym"

SMALL = {  # small.yaml of the same folders: nodes, and what a run of that size changes
    "rlvr1": (
        (21, 8, 5),
        {"prompts_per_step": 128, "generations_per_prompt": 8, "expert": 16, "tensor": 8},
        {"train_global_batch_size": 1024},
    ),
    "swe1": (
        (8, 4, 0),
        {"prompts_per_step": 32, "max_sequence": 32_768, "expert": 16, "context": 4},
        {"train_global_batch_size": 512, "max_total_sequence_length": 32_768},
    ),
    "rlhf": (
        (24, 8, 8),
        {"generations_per_prompt": 8, "expert": 16, "tensor": 8},
        {"train_global_batch_size": 1024},
    ),
}


@pytest.mark.parametrize("step", SMALL)
def test_the_small_variants_of_the_recipe(step):
    nodes, changed, wanted = SMALL[step]
    nodes = Machine(nodes[0], 8, 12, *nodes[1:])
    told, options = told_of("super3", step)
    sizes = {key: changed.pop(key) for key in ("expert", "context") if key in changed}
    parallel = {**told["parallel"], **sizes}
    engine = {**told["generation"], "tensor": changed.pop("tensor", 8)}
    own = {"policy": {"generation": {"vllm_kwargs": {"max_num_seqs": 16}}}}
    changed = {**changed, "parallel": parallel, "generation": engine, "nemo_rl": own}
    found = generated("super3", step, nodes=nodes, **changed)
    assert {key: found[f"policy.{key}"] for key in wanted} == wanted
    assert found["policy.generation.vllm_cfg.tensor_parallel_size"] == 8
    assert found["policy.generation.vllm_kwargs.max_num_seqs"] == 16
    assert found["policy.megatron_cfg.expert_model_parallel_size"] == 16
    assert found["cluster.num_nodes"] == nodes.nodes
    assert found["policy.generation.colocated.resources.num_nodes"] == nodes.generate_nodes
    assert not fits.problems({**told, **changed}, options, nodes)


@pytest.mark.parametrize("release", ["v0.5.0", "v0.6.0"])
def test_other_releases_name_the_data_their_way(release):
    found = generated("nano3", "rlvr", release=release, validate={"every": 5, "generations": 1})
    newer = release == "v0.6.0"
    assert ("data.train.data_path" in found) is newer
    assert ("data.train_jsonl_fpath" in found) is not newer
    assert found["grpo.num_prompts_per_step"] == 128


def test_an_unknown_key_is_an_error_that_names_release_and_nearest():
    with pytest.raises(
        UserError, match=r"NeMo-RL nano-v3.*grpo\.num_prompt_per_step.*did you mean"
    ):
        generated("nano3", "rlvr", nemo_rl={"grpo": {"num_prompt_per_step": 64}})
    with pytest.raises(UserError, match=r"NeMo-RL v0\.5\.0.*grpo\.advantage_clip_low"):
        generated("nano3", "rlvr", release="v0.5.0", validate=None, advantage_clip=50.0)


def test_a_key_of_nemo_rls_own_wins_and_is_free_below_nemo_gym():
    own = {
        "policy": {"generation": {"vllm_kwargs": {"max_num_seqs": 16}}},
        "env": {"nemo_gym": {"anything": {"at": "all"}}},
        "grpo": {"seq_logprob_error_threshold": 3},
    }
    found = generated("super3", "rlvr1", nemo_rl=own)
    assert found["policy.generation.vllm_kwargs.max_num_seqs"] == 16
    assert found[f"{GYM}.anything.at"] == "all"
    assert found["grpo.seq_logprob_error_threshold"] == 3


def test_the_image_must_hold_the_release(tmp_path, monkeypatch):
    monkeypatch.setenv("NEMOFLOW_NEMO_RL", str(tmp_path))
    with pytest.raises(UserError, match="start the job in the image of NeMo-RL super-v3"):
        releases.Release("super-v3").program("grpo")
    nemo_rl_stand_in.install(tmp_path)
    assert releases.Release("super-v3").program("grpo").name == "run_grpo_nemo_gym.py"
    with pytest.raises(UserError, match="not NeMo-RL nano-v3"):
        releases.Release("nano-v3").program("grpo")
