"""Whether a job of the cluster's engines fits the nodes and GPUs that a profile gives to it.

What a run's own numbers must fulfil, whatever the machine, `config.checks` has refused before.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nemoflow import cost, graph
from nemoflow.config.run import Run
from nemoflow.config.training import Parallel
from nemoflow.machine import Machine
from nemoflow.profile import Hardware

WORDS = {"tensor": "TP", "pipeline": "PP", "context": "CP", "expert": "EP", "expert_tensor": "ETP"}


@dataclass(frozen=True)
class Problem:
    """What does not fit: a dotted key of the run, and what is wrong and to be done."""

    key: str
    text: str


@dataclass(frozen=True)
class Stage:
    """A training stage of a run with the machine that its job gets."""

    name: str  # pretrain.phase1, sft, rl.swe1
    run: Run
    machine: Machine
    hardware: Hardware | None

    @property
    def section(self) -> str:
        """pretrain, sft or rl."""
        return self.name.partition(".")[0]

    @property
    def key(self) -> str:
        """The stage's place in the run."""
        section, _, part = self.name.partition(".")
        return {"pretrain": f"pretrain.phases.{part}", "rl": f"rl.steps.{part}"}.get(section, "sft")

    @property
    def settings(self) -> Any:
        """The run's section."""
        return getattr(self.run, self.section)

    @property
    def entry(self) -> Any:
        """The phase, the section of SFT, or the step."""
        return self.settings if self.name == "sft" else graph.entry(self.run, self.name)

    @property
    def replicas(self) -> int:
        """Data-parallel ranks; 0 where the world is no multiple of the model."""
        size = model_size(self.entry.parallel)
        return 0 if self.machine.world % size else self.machine.world // size


def model_size(cut: Parallel) -> int:
    """GPUs that hold one copy of the model's dense layers."""
    return cut.tensor * cut.pipeline * cut.context


def expert_size(cut: Parallel) -> int:
    """GPUs that hold one copy of its experts."""
    return cut.expert * cut.expert_tensor * cut.pipeline


def cut_of(stage: Stage) -> str:
    """How a stage is cut, in the field's abbreviations: TP4 EP8 DP192."""
    sizes = [(WORDS[name], value) for name, value in stage.entry.parallel if name in WORDS]
    told = " ".join(f"{word}{value}" for word, value in sizes if value > 1)
    return f"{told} DP{stage.replicas or '?'}".strip()


def problems(stage: Stage) -> Iterator[Problem]:
    """Everything about a stage that does not fit its machine."""
    if not stage.machine.gpus:
        text = f"the profile gives rule {stage.section} no GPUs; set gres: gpu:8 there"
        yield Problem(f"{stage.key}.parallel", text)
        return
    yield from precision(stage)
    yield from sizes(stage)
    if stage.replicas:
        yield from batch(stage)
        yield from memory(stage)
    yield from schedule(stage)
    if stage.section == "rl":
        yield from generation(stage)
        yield from judges(stage)


def precision(stage: Stage) -> Iterator[Problem]:
    """The GPUs have the stage's precision."""
    known, asked = stage.hardware and stage.hardware.peak_tflops, stage.settings.precision
    if known and asked not in known:
        yield Problem(
            f"{stage.section}.precision",
            f"{stage.hardware.gpu} GPUs have no {asked};"
            f" set {stage.section}.precision to one of {', '.join(sorted({*known} - {'fp32'}))}",
        )


def sizes(stage: Stage) -> Iterator[Problem]:
    """The parallel sizes cut the GPUs that train into equal parts."""
    cut, machine = stage.entry.parallel, stage.machine
    gpus = f"{machine.world} GPUs that train ({machine.train_nodes} × {machine.gpus})"
    for size, word in (
        (model_size(cut), "tensor × pipeline × context"),
        (expert_size(cut), "expert × expert_tensor × pipeline"),
    ):
        if machine.world % size:
            yield Problem(
                f"{stage.key}.parallel",
                f"{word} = {size} does not divide the {gpus}; change these sizes, or nodes of rule"
                f" {stage.section} in the profile",
            )
    if cut.dispatcher == "flex" and cut.expert * cut.tensor == 1:
        # megatron/core/transformer/moe/token_dispatcher.py, MoEFlexTokenDispatcher
        text = "flex (DeepEP) needs expert × tensor > 1; set alltoall, or cut the experts"
        yield Problem(f"{stage.key}.parallel.dispatcher", text)


def batch(stage: Stage) -> Iterator[Problem]:
    """Every data-parallel rank gets the same number of sequences."""
    ranks, entry = stage.replicas, stage.entry
    told = (
        f"{ranks} data-parallel ranks ({stage.machine.world} GPUs / {model_size(entry.parallel)})"
    )
    if stage.section == "rl":
        rollouts = entry.prompts_per_step * entry.generations_per_prompt // entry.minibatches
        if rollouts % ranks:
            yield Problem(
                f"{stage.key}.prompts_per_step",
                f"an update's {rollouts} rollouts (prompts_per_step × generations_per_prompt /"
                f" minibatches) are no multiple of {told}; change them, or nodes in the profile",
            )
        return
    sequences, micro = entry.batch.global_size, entry.batch.micro
    if sequences % (micro * ranks):
        yield Problem(
            f"{stage.key}.batch.global",
            f"{sequences} is no multiple of micro {micro} × {told}; change it, or nodes in the"
            " profile",
        )


def memory(stage: Stage) -> Iterator[Problem]:
    """Weights, gradients and optimizer state fit into the GPUs."""
    if stage.hardware is None:
        return
    need, limit = bytes_per_gpu(stage), stage.hardware.memory_gb * 1e9
    if need > limit:
        yield Problem(
            f"{stage.key}.parallel.expert",
            f"weights, gradients and optimizer state are {need / 1e9:.0f} GB per GPU, and"
            f" {stage.hardware.gpu} has {limit / 1e9:.0f};"
            " raise expert, tensor, pipeline or nodes",
        )


def bytes_per_gpu(stage: Stage) -> float:
    """Memory that a stage needs on each GPU that trains, activations apart.

    Gradients are reduced in fp32 by Megatron-Bridge's recipes, in bf16 by NeMo-RL
    (grad_reduce_in_fp32 in examples/configs/grpo_math_1B.yaml).
    """
    gradient = 2 if stage.section == "rl" else 4
    frozen = bool(getattr(stage.entry, "lora", None))
    model, cut = stage.run.pretrain.model, stage.entry.parallel
    return cost.memory(model, cut, stage.machine.world, gradient, not frozen)


def schedule(stage: Stage) -> Iterator[Problem]:
    """The warm-up ends before the training (Megatron refuses equality too)."""
    entry = stage.entry
    if entry.schedule.warmup_iterations >= (last := iterations(stage)):
        yield Problem(
            f"{stage.key}.schedule.warmup_iterations",
            f"{entry.schedule.warmup_iterations} is not before the last iteration, {last};"
            " shorten the warm-up",
        )


def iterations(stage: Stage) -> int:
    """The last iteration that a stage names."""
    entry = stage.entry
    told = {"pretrain": "stop_iteration", "sft": "iterations", "rl": "iterations"}[stage.section]
    return getattr(entry, told) or entry.schedule.end_iteration


def generation(stage: Stage) -> Iterator[Problem]:
    """Each copy of the generation engine stays inside a node."""
    machine, tensor = stage.machine, stage.entry.generation.tensor
    if stage.entry.algorithm == "grpo" and machine.gpus % tensor:
        yield Problem(
            f"{stage.key}.generation.tensor",
            f"{tensor} does not divide the {machine.gpus} GPUs of a node; set a divisor",
        )
    heads = stage.run.pretrain.model.attention.heads
    if heads % tensor:
        text = f"{tensor} does not divide the {heads} query heads (model.attention.heads)"
        yield Problem(f"{stage.key}.generation.tensor", text)


def judges(stage: Stage) -> Iterator[Problem]:
    """The judges' GPUs are those of the nodes set aside for environments."""
    machine, asked = stage.machine, stage.entry.judges
    need = sum(judge.replicas * judge.tensor for judge in asked.values())
    have = machine.environment_nodes * machine.gpus
    if need > have:
        yield Problem(
            f"{stage.key}.judges",
            f"{', '.join(asked)} need {need} GPUs (replicas × tensor), environment_nodes of rule rl"
            f" in the profile hold {have}; set environment_nodes: {-(-need // machine.gpus)}, or"
            " fewer replicas",
        )
    for name, judge in asked.items():
        if machine.gpus % judge.tensor:
            yield Problem(
                f"{stage.key}.judges.{name}.tensor",
                f"{judge.tensor} does not divide the {machine.gpus} GPUs of a node; set a divisor",
            )


def weights(stage: Stage, rule: str) -> Iterator[Problem]:
    """An export, and the server of an evaluation, hold the whole model in one job's GPUs."""
    machine = stage.machine
    if not machine.total:
        text = f"the profile gives rule {rule} no GPUs; set gres: gpu:8 there"
        yield Problem(rule.partition("_")[0], text)
        return
    counted = cost.parameters(stage.run.pretrain.model)
    need = cost.WEIGHTS * counted.stored / machine.total
    if stage.hardware and need > stage.hardware.memory_gb * 1e9:
        yield Problem(
            "pretrain.model",
            f"its weights are {need / 1e9:.0f} GB on each of {machine.total} GPUs of rule {rule},"
            f" and {stage.hardware.gpu} has {stage.hardware.memory_gb}; give the rule more in the"
            " profile",
        )
