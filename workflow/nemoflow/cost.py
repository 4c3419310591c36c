"""What a job costs: floating-point operations, GPU-hours, memory and disk, estimated.

Counts follow from the architecture alone; hours rest on the utilisation that a profile assumes.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any

from nemoflow import checkpoint
from nemoflow.config.base import plain
from nemoflow.config.model import Model
from nemoflow.config.training import Options, Parallel
from nemoflow.machine import Machine
from nemoflow.profile import Hardware

# Megatron's distributed optimizer saves bf16 weights, and in fp32 the master copy and both moments
# of Adam (megatron/core/optimizer/distrib_optimizer.py).
WEIGHTS, OPTIMIZER = 2, 12  # bytes per parameter
# A packed row holds conversations that do not attend to each other: super3's report trains 80B
# tokens of 7M samples, nano3's 218B of 18M.
CONVERSATION = 12_000  # tokens
BACKWARD = 3  # training is the forward pass once and its double once


@dataclass(frozen=True)
class Parameters:
    """Parameters of a model without its multi-token prediction head.

    `active` is what one token uses, both embeddings included; `experts` the routed experts' share
    of `total`, `mtp` the head's own, `mtp_experts` the routed experts' share of that.
    """

    total: int
    active: int
    embedding: int
    experts: int
    mtp: int
    mtp_experts: int

    @property
    def stored(self) -> int:
        """What a checkpoint of the pretrained model holds."""
        return self.total + self.mtp


def mamba(model: Model) -> int:
    """Parameters of a Mamba-2 layer: projections, convolution, A, D, the time step's bias."""
    m = model.mamba
    inner, channels = m.heads * m.head_dim, m.heads * m.head_dim + 2 * m.groups * m.state
    projections = model.hidden_size * (inner + channels + m.heads) + inner * model.hidden_size
    return projections + channels * (m.conv + 1) + 3 * m.heads + inner


def attention(model: Model) -> int:
    """Parameters of an attention layer."""
    a = model.attention
    return 2 * model.hidden_size * a.head_dim * (a.heads + a.kv_heads)


def expert(model: Model) -> int:
    """Parameters of one routed expert."""
    return 2 * (model.moe.latent or model.hidden_size) * model.moe.ffn


def around_experts(model: Model) -> int:
    """Parameters of an expert layer that every token uses: router, shared expert, latents."""
    moe, hidden = model.moe, model.hidden_size
    return hidden * (moe.experts + 2 * moe.shared_ffn + 2 * (moe.latent or 0))


def layer(model: Model, letter: str, experts: int) -> int:
    """Parameters of a layer, with so many of its routed experts."""
    norm = model.hidden_size
    if letter == "E":
        return norm + around_experts(model) + experts * expert(model)
    if letter == "-":
        return norm + 2 * model.hidden_size * model.ffn
    return norm + (mamba(model) if letter == "M" else attention(model))


def parameters(model: Model) -> Parameters:
    """The parameters of a model, norms included; the embeddings are not tied."""
    embedding = model.vocab_size * model.hidden_size
    outside = 2 * embedding + model.hidden_size
    every, used = (
        sum(layer(model, letter, experts) for letter in model.pattern)
        for experts in (model.moe.experts, model.moe.experts_per_token)
    )
    one = model.moe.experts * expert(model)
    head = model.mtp.pattern if model.mtp else ""
    joined = 2 * model.hidden_size**2 + 3 * model.hidden_size if head else 0
    return Parameters(
        total=outside + every,
        active=outside + used,
        embedding=embedding,
        experts=model.pattern.count("E") * one,
        mtp=joined + sum(layer(model, letter, model.moe.experts) for letter in head),
        mtp_experts=head.count("E") * one,
    )


def scan(model: Model) -> int:
    """FLOPs per token of the chunked scan of a Mamba-2 layer, its convolution included.

    Inside a chunk scores and their product with the values; the state written and read once
    (Mamba-2, arXiv 2405.21060, section 6).
    """
    m = model.mamba
    inner, groups = m.heads * m.head_dim, m.groups * m.state
    inside = 2 * m.chunk * (groups + inner)
    return inside + 4 * inner * m.state + 2 * m.conv * (inner + 2 * groups)


def forward(model: Model, context: int, mtp: bool) -> float:
    """FLOPs of a forward pass, per token, in sequences of `context` tokens.

    Two per parameter that the token meets in a product, and what grows with the sequence: causal
    attention, in which a token sees half of the sequence on average.
    """
    counted = parameters(model)
    pattern, matrices = model.pattern, counted.active - counted.embedding
    if mtp and model.mtp:
        pattern += model.mtp.pattern * model.mtp.depths
        used = sum(layer(model, x, model.moe.experts_per_token) for x in model.mtp.pattern)
        each = used + 2 * model.hidden_size**2 + counted.embedding  # the output layer once more
        matrices += model.mtp.depths * each
    seen = 2 * context * model.attention.heads * model.attention.head_dim
    return 2 * matrices + pattern.count("*") * seen + pattern.count("M") * scan(model)


@dataclass(frozen=True)
class Estimate:
    """What a job will take. `tokens` None: it trains none; `hours` of wall time; bytes of disk."""

    tokens: float | None
    hours: float | None
    gpu_hours: float | None
    kept: int
    needed: int
    assumed: bool = False


def hours(flops: float, share: float, precision: str, hardware: Hardware, gpus: int) -> float:
    """Hours that so many GPUs work for `flops`, at a share of their peak."""
    return flops / (hardware.peak_tflops[precision] * 1e12 * share * gpus) / 3600


def share(hardware: Hardware, stage: str, precision: str) -> float | None:
    """The assumed utilisation of a stage; None where the profile states none, or has no such."""
    known = getattr(hardware.utilisation, stage).get(precision)
    return known if precision in hardware.peak_tflops else None


def disk(size: int, options: Options, first: int, stop: int) -> tuple[int, int]:
    """Bytes of the checkpoints that stay when a job is done, and of the most while it works.

    `size` is that of one; the job trains from iteration `first` to `stop`.
    """
    told, every = plain(options), options.save_every
    saved = {*range((first // every + 1) * every, stop, every), stop}
    stay = checkpoint.kept(saved, {**told, "keep": 1}, stop)
    return size * len(stay), size * (len(checkpoint.kept(saved, told, stop)) + 1)


def training(
    model: Model, stage: str, precision: str, tokens: int, context: int, machine: Machine,
    room: tuple[int, int], hardware: Hardware | None,
) -> Estimate:  # fmt: skip
    """Pretraining or SFT on so many tokens, in sequences of `context`; `room` is from `disk`."""
    rate = share(hardware, stage, precision) if hardware else None
    if rate is None or not machine.world:
        return Estimate(tokens, None, None, *room)
    flops = BACKWARD * tokens * forward(model, context, mtp=True)
    taken = hours(flops, rate, precision, hardware, machine.world)
    return Estimate(tokens, taken, taken * machine.total, *room)


def rollouts(
    model: Model, step: Any, precision: str, rows: int, length: float, machine: Machine,
    hardware: Hardware | None, assumed: bool,
) -> Estimate:  # fmt: skip
    """A step of RL on `rows` prompts, with rollouts of `length` tokens on average.

    Where generation has nodes of its own it runs beside the training, and the longer of both
    counts; else one follows the other. Every node is held until the end.
    """
    per_step = step.prompts_per_step * step.generations_per_prompt
    answers = 2 if step.algorithm == "dpo" else 1  # a pair has two
    passes = ceil(rows / step.prompts_per_step) * (step.epochs or 0)
    iterations = min(filter(None, (step.iterations, passes)), default=0)
    tokens = iterations * per_step * answers * length
    kept, needed = disk(stored(model, mtp=False), step.options, 0, max(iterations, 1))
    rates = [share(hardware, stage, precision) for stage in ("rl", "generate")] if hardware else []
    if not rates or None in rates or not machine.world:
        return Estimate(tokens, None, None, kept, needed, assumed)
    once = tokens * forward(model, int(length), mtp=False)
    work = BACKWARD + 1 + (1 if step.kl or step.algorithm == "dpo" else 0)  # log-probabilities
    trained = hours(work * once, rates[0], precision, hardware, machine.world)
    makers = (machine.generate_nodes or machine.train_nodes) * machine.gpus
    made = hours(once, rates[1], precision, hardware, makers) if step.algorithm == "grpo" else 0
    taken = max(trained, made) if machine.generate_nodes else trained + made
    return Estimate(tokens, taken, taken * machine.total, kept, needed, assumed)


def fixed(model: Model, stage: str, machine: Machine, hardware: Hardware | None) -> Estimate:
    """An export, or one task of an evaluation, by the duration that the profile assumes."""
    kept = WEIGHTS * parameters(model).stored if stage == "export" else 0
    taken = getattr(hardware.hours, stage) if hardware else None
    return Estimate(None, taken, taken and taken * machine.total, kept, kept, True)


def stored(model: Model, lora: bool = False, mtp: bool = True) -> int:
    """Bytes of one checkpoint; adapters are small beside everything else."""
    counted = parameters(model)
    if lora:
        return 0
    return (WEIGHTS + OPTIMIZER) * (counted.stored if mtp else counted.total)


def memory(model: Model, cut: Parallel, world: int, gradient: int, trained: bool = True) -> float:
    """Bytes on one GPU for weights, gradients and optimizer state; activations come on top.

    Weights and gradients lie on every GPU that holds the layer; the optimizer's state is spread
    over the replicas of it (Megatron's distributed optimizer). `gradient` is bytes per gradient:
    4 where they are reduced in fp32, 2 in bf16; of frozen weights there is neither.
    """
    counted = parameters(model)
    routed = counted.experts + counted.mtp_experts
    groups = (
        (counted.stored - routed, cut.tensor * cut.pipeline),
        (routed, cut.expert * cut.expert_tensor * cut.pipeline),
    )
    return sum(
        size / ways * (WEIGHTS + (gradient + OPTIMIZER / (world / ways) if trained else 0))
        for size, ways in groups
    )
