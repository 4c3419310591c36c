"""What the local engine has not: keys that it would lose without a word."""

from typing import Any

from nemoflow import graph
from nemoflow.config.run import Run


def check(run: Run, stages: list[str], fail: Any) -> None:
    """Raise UserError, by `fail(text, *key)`, for a key of a stage that the local engine trains."""
    sections = {stage.partition(".")[0] for stage in stages}
    local = {name: getattr(run, name) for name in sorted(sections)}
    local = {name: section for name, section in local.items() if section.engine == "local"}
    for name, section in local.items():
        if section.precision != "fp32":
            fail("the local engine trains in fp32", name, "precision")
    if local and run.pretrain.model.moe.aux_loss:
        key = ("pretrain", "model", "moe", "aux_loss")
        fail("the local engine balances by expert bias alone; set 0", *key)
    if "sft" in local and run.sft.lora and run.sft.lora.dropout:
        fail("the local engine's adapters of experts have none; set 0", "sft", "lora", "dropout")
    for stage in stages:
        section, _, name = stage.partition(".")
        if section in local:
            inside = {"pretrain": ("phases", name), "rl": ("steps", name)}.get(section, ())
            entry = graph.entry(run, stage) if inside else run.sft
            check_stage(entry, fail, section, *inside)


def check_stage(entry: Any, fail: Any, *key: str) -> None:
    """The same of one phase, of SFT, or of one step."""
    for size, value in entry.parallel:
        if isinstance(value, int) and value > 1:
            fail("the local engine works on one device; set 1", *key, "parallel", size)
    lacks = ["megatron", "advantage_clip", "truncated_importance", "asynchronous", "judges"]
    only_nemo_rl = ["spike", "malformed_thinking", "release", "nemo_rl"]
    for name in [*lacks, *only_nemo_rl] if key[0] == "rl" else lacks:
        if getattr(entry, name, None):
            fail("the local engine has no such thing; set null", *key, name)
    if entry.schedule.warmup_from is not None:
        fail("the local engine warms up from 0; set null", *key, "schedule", "warmup_from")
    if getattr(entry, "algorithm", "grpo") != "grpo":
        fail("the local engine has grpo only", *key, "algorithm")
    if getattr(entry, "iterations", 1) is None:
        fail("the local engine counts iterations; set a number", *key, "iterations")
