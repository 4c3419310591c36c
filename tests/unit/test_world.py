"""Whether parallel sizes fit the GPUs that a profile gives: planted faults, each naming its key."""

# ruff: noqa: E501  (a table reads better whole)

from pathlib import Path

import pytest

from nemoflow import bridge, inspect
from nemoflow.errors import UserError
from small_config import with_runs

ROOT = Path(__file__).parents[2]
B200 = (ROOT / "profiles/b200/config.yaml").read_text()

# The run it is planted in, what is written into a child of it, a change of the profile (text
# before, text after), what is said. The first nine are the table of what Megatron-Bridge checks.
FAULTS = {
    "world not divisible": ("super3", "pretrain: {parallel: {pipeline: 11}}", None,
        ["pretrain.phases.phase1.parallel:", "tensor × pipeline × context = 44 does not divide the 768 GPUs that train (96 × 8)"]),
    "batch not divisible": ("super3", "pretrain: {batch: {global: 3000}}", None,
        ["pretrain.phases.phase1.batch.global:", "3000 is no multiple of micro 1 × 192"]),
    "layers are not the pattern's": ("super3", "pretrain: {model: {layers: 87}}", None,
        ["pretrain.model:", "layers is 87 but the pattern has 88 letters"]),
    "bad letter in the pattern": ("super3", "pretrain: {model: {pattern: MEX, layers: 3}}", None,
        ["pretrain.model.pattern:", "'MEX'"]),
    "heads": ("super3", "sft: {parallel: {tensor: 3}}", None,
        ["sft.parallel.tensor:", "3 does not divide the 32 query heads"]),
    "experts": ("super3", "pretrain: {parallel: {expert: 7}}", None,
        ["pretrain.phases.phase1.parallel.expert:", "7 does not divide the 512 experts"]),
    "data of another length": ("super3", "sft: {batch: {sequence: 131072}}", None,
        ["sft.batch.sequence:", "131072 is not the pack_size of mixture super3 (262144)"]),
    "warm-up too long": ("super3", "sft: {schedule: {warmup_iterations: 4769}}", None,
        ["sft.schedule.warmup_iterations:", "4769 is not before the last iteration, 4769"]),
    "unknown key": ("super3", "pretrain: {parallel: {tensr: 4}}", None,
        ["pretrain.phases.phase1.parallel.tensr", "did you mean pretrain.phases.phase1.parallel.tensor?"]),
    "key and value heads": ("nano3", "pretrain: {model: {attention: {heads: 24, kv_heads: 12}}}", None,
        ["pretrain.phases.long_context.parallel.tensor:", "8 neither divides the 12 key and value heads nor"]),
    "pipeline": ("super3", "pretrain: {parallel: {pipeline: 3}}", None,
        ["pretrain.phases.phase1.parallel.pipeline:", "3 does not divide the 88 layers"]),
    "context": ("super3", "pretrain: {parallel: {context: 16}, batch: {sequence: 8208}}", None,
        ["pretrain.phases.phase1.parallel.context:", "8208 tokens are no multiple of 2 × 16"]),
    "Mamba heads of a rank": ("super3", "pretrain: {parallel: {context: 64}}", None,
        ["pretrain.phases.phase1.parallel.context:", "64 does not divide the 32 Mamba heads"]),
    "sequence parallel alone": ("super3", "sft: {parallel: {tensor: 1}}", None,
        ["sft.parallel:", "sequence parallelism needs tensor > 1"]),
    "experts without sequence parallel": ("super3", "sft: {parallel: {sequence: false}}", None,
        ["sft.parallel.sequence:", "need sequence parallelism"]),
    "experts over the world": ("super3", "pretrain: {parallel: {expert: 512}}", None,
        ["pretrain.phases.phase1.parallel:", "expert × expert_tensor × pipeline = 512 does not divide the 768"]),
    "padding of packed rows": ("super3", "sft: {parallel: {context: 32}}", None,
        ["sft.parallel.context:", "pads each conversation to a multiple of 32 tokens"]),
    "padding for sequence parallelism": ("super3", "sft: {parallel: {tensor: 4}}", None,
        ["sft.parallel.context:", "these sizes need pad_multiple: 64"]),
    "padding without context parallelism": ("super3-smoke", "sft: {mixture: tiny}", None,
        ["sft.parallel.sequence:", "mixture tiny pads", "these sizes need pad_multiple: 4"]),
    "memory": ("super3", "pretrain: {parallel: {expert: 4}}", None,
        ["pretrain.phases.phase1.parallel.expert:", "GB per GPU, and b200 has 180"]),
    "DeepEP without experts to send": ("nano3", "sft: {parallel: {tensor: 1, expert: 1, sequence: false, context: 16}}", None,
        ["sft.parallel.dispatcher:", "flex (DeepEP) needs expert × tensor > 1"]),
    "rollouts": ("super3", "rl: {prompts_per_step: 3, generations_per_prompt: 5}", None,
        ["rl.steps.rlvr1.prompts_per_step:", "15 rollouts", "no multiple of 8 data-parallel ranks"]),
    "generation across nodes": ("super3", "rl: {generation: {tensor: 16}}", None,
        ["rl.steps.rlvr1.generation.tensor:", "16 does not divide the 8 GPUs of a node"]),
    "judges without nodes": ("super3", "", ("else 5 if wildcards.run.startswith('super3')", "else 4 if wildcards.run.startswith('super3')"),
        ["rl.steps.rlvr1.judges:", "need 40 GPUs", "set environment_nodes: 5"]),
    "no GPUs": ("super3", "", ("    gres: \"gpu:8\"\n", ""),
        ["sft.parallel:", "the profile gives rule sft no GPUs"]),
    "nobody trains": ("super3", "", ("else 72 if wildcards.step.startswith('rlvr') else 32\"", "else 104 if wildcards.step.startswith('rlvr') else 32\""),
        ["profiles/b200/config.yaml", "set-resources.rl", "none is left to train"]),
}  # fmt: skip


@pytest.fixture
def checked(config_folder, tmp_path, monkeypatch):
    """The lines of `check` for a child of a run, with a changed profile b200."""
    monkeypatch.setenv(bridge.PYTHON, "/nowhere")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules").symlink_to(ROOT / "rules")
    for kind in ("b200", "h100"):
        (tmp_path / "profiles" / kind).mkdir(parents=True)
        machine = (ROOT / f"profiles/{kind}/machine.yaml").read_text()
        (tmp_path / "profiles" / kind / "machine.yaml").write_text(machine)

    def check(parent, text="", change=None, kind="b200"):
        changed = B200.replace(*change) if change else B200
        assert change is None or changed != B200
        (tmp_path / "profiles" / kind / "config.yaml").write_text(changed)
        name = f"{parent}-child"
        config = with_runs(
            config_folder, **{name.replace("-", "_"): f"extends: {parent}\n{text}\n"}
        )
        return list(inspect.check(config, [name], f"profiles/{kind}"))

    return check


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_refused_and_names_its_key(checked, name):
    run, text, change, said = FAULTS[name]
    with pytest.raises(UserError) as error:
        checked(run, text, change)
    for part in said:
        assert part in str(error.value)


def test_gpus_without_a_precision_name_the_key_to_set(checked):
    with pytest.raises(UserError) as error:
        checked("super3", kind="h100")
    told = str(error.value).splitlines()
    assert len(set(told)) == len(told)
    assert (
        "pretrain.precision: h100 GPUs have no nvfp4; set pretrain.precision to one of" in told[0]
    )


def test_super3_fits_h100_once_its_experts_are_cut_finer(checked):
    keys = "pretrain: {precision: bf16, parallel: {expert: 64}}"
    assert checked("super3", keys, kind="h100")[-2].endswith(
        "9 gaps of the recipe are stated in it"
    )


def test_sizes_are_those_of_the_nodes_that_train(checked):
    lines = {
        line.split()[0]: line for line in checked("super3") if line.startswith(("rl.", "pretrain."))
    }
    assert "109 × 8 (32+72+5)" in lines["rl.rlvr1"] and "TP4 CP8 EP8 DP8" in lines["rl.rlvr1"]
    assert "96 × 8" in lines["pretrain.phase1"] and "TP4 EP8 DP192" in lines["pretrain.phase1"]


def test_a_table_is_readable_in_120_columns(checked):
    lines = checked("nano3")
    table = lines[: next(i for i, line in enumerate(lines) if line.startswith("in all")) + 1]
    assert max(map(len, table)) <= 120
    assert table[0].split()[0] == "job" and "fits" in table[1]
    assert any(line.startswith("Assumed of b200") for line in lines)


def test_a_run_of_the_local_engine_needs_no_gpus(config, monkeypatch):
    monkeypatch.chdir(ROOT)
    (line,) = inspect.check(config, ["micro"], "profiles/local")
    assert line.endswith("sound")
