"""The models of a run file: what `config/{run}.yaml` may say, key by key."""

from typing import Any, Literal

from pydantic import Field, model_validator

from nemoflow.config.base import Count, Integer, Name, Number, Positive, Rate, Share, Strict
from nemoflow.config.evaluation import Eval
from nemoflow.config.model import Model
from nemoflow.config.training import Batch, Optimizer, Options, Parallel, Schedule, Validate


class Phase(Strict):
    """A phase of pretraining; what it does not say comes from the `pretrain` section."""

    after: Name | None = Field(None, description="the phase before; null = the first")
    init: Literal["random", "continue", "weights", "merged"] = Field(
        description="continue: weights, optimizer, step; weights: weights only, from step 0;"
        " merged: the same, of the average that pretrain.merge makes of the phase before"
    )
    blend: Name = Field(description="a file of config/blends/")
    stop_iteration: Positive = Field(description="the phase ends after this iteration")
    seed: Count
    schedule: Schedule
    batch: Batch
    parallel: Parallel
    validate_: Validate = Field(alias="validate")
    megatron: dict[str, Any] | None = Field(
        None, description="further fields of Megatron-Bridge's ConfigContainer, nested by name"
    )
    options: Options

    @model_validator(mode="after")
    def fits(self) -> "Phase":
        """A phase ends inside its schedule, after the warm-up."""
        if self.stop_iteration > self.schedule.end_iteration:
            raise ValueError(
                f"stop_iteration ({self.stop_iteration}) lies behind schedule.end_iteration"
                f" ({self.schedule.end_iteration})"
            )
        if self.init != "continue" and self.schedule.warmup_iterations > self.stop_iteration:
            raise ValueError(
                f"schedule.warmup_iterations ({self.schedule.warmup_iterations}) is longer than the"
                f" phase: stop_iteration is {self.stop_iteration}"
            )
        return self


class Merge(Strict):
    """Averages of a phase's last checkpoints."""

    phase: Name = Field(description="the phase whose options.window keeps the checkpoints")
    windows: dict[Name, Positive] = Field(
        min_length=1,
        description="by name: iterations back from the phase's end; stage `merged` is the last one",
    )


class Pretrain(Strict):
    """Pretraining; what a phase may set and stands here is every phase's default."""

    engine: Literal["megatron", "local"]
    tokenizer: Name = Field(description="a file of config/tokenizers/")
    precision: Literal["fp32", "bf16", "fp8", "nvfp4"]
    model: Model
    optimizer: Optimizer
    spike: Number | None = Field(
        3.0, gt=1, description="stop when the loss exceeds this many times its recent median"
    )
    sample: Positive | None = Field(
        None, description="train on the first N documents of each corpus only: {corpus}-sample{N}"
    )
    merge: Merge | None = Field(None, description="models averaged over checkpoints; null = none")
    phases: dict[Name, Phase] = Field(min_length=1)


Target = Literal[
    "linear_qkv", "linear_proj", "linear_fc1", "linear_fc2", "in_proj", "out_proj"
]  # fmt: skip


class Lora(Strict):
    """Low-rank adapters instead of full fine-tuning (arXiv 2106.09685)."""

    rank: Positive = 32
    alpha: Positive = Field(32, description="an adapter counts alpha / rank times")
    dropout: Share = Field(0.0, description="of an adapter's inputs while training")
    targets: list[Target] = Field(
        ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2", "in_proj", "out_proj"],
        min_length=1,
        description="layers with adapters, as Megatron names them: attention, experts, Mamba",
    )


class Sft(Strict):
    """Supervised fine-tuning on packed conversations."""

    engine: Literal["megatron", "local"]
    mixture: Name = Field(description="a file of config/mixtures/")
    precision: Literal["fp32", "bf16", "fp8", "nvfp4"]
    iterations: Positive
    seed: Count
    optimizer: Optimizer
    schedule: Schedule
    batch: Batch = Field(description="sequences are packed rows")
    parallel: Parallel
    validate_: Validate = Field(alias="validate")
    lora: Lora | None = None
    spike: Number | None = Field(3.0, gt=1, description="as in pretrain")
    megatron: dict[str, Any] | None = Field(None, description="as in pretrain")
    options: Options

    @model_validator(mode="after")
    def fits(self) -> "Sft":
        """The warm-up ends before the training."""
        if self.schedule.warmup_iterations > self.iterations:
            raise ValueError(
                f"schedule.warmup_iterations ({self.schedule.warmup_iterations}) is longer than the"
                f" training: iterations is {self.iterations}"
            )
        return self


class Generation(Strict):
    """Sampling of rollouts."""

    temperature: Rate = 1.0
    top_p: Share = 1.0
    max_new_tokens: Positive
    tensor: Positive = Field(1, description="tensor parallelism of the generation engine")
    memory: Share = Field(0.5, description="share of GPU memory for the generation engine")
    prefix_caching: bool | None = Field(
        None, description="keep the cache of common beginnings (nemo_rl)"
    )


class Asynchronous(Strict):
    """Training while the next rollouts are generated."""

    max_age: Positive = Field(description="iterations a rollout may be old")
    in_flight_updates: bool = Field(description="weights change while a rollout is being generated")


class Judge(Strict):
    """A model that scores rollouts."""

    hub: str
    replicas: Positive
    tensor: Positive
    max_sequence: Positive
    used_by: list[str] = Field(min_length=1, description="environments that ask it")
    arguments: dict[str, Any] | None = Field(
        None, description="further arguments of its server, by vLLM's names"
    )
    environment: dict[str, str] | None = Field(
        None, description="environment variables of its server"
    )


class StepValidate(Strict):
    """Rewards on the validation split."""

    every: Positive = Field(description="iterations between two validations")
    generations: Positive = Field(1, description="rollouts per prompt")


class Step(Strict):
    """A step of reinforcement learning; what it does not say comes from the `rl` section."""

    after: Name | None = Field(None, description="the step before; null = after SFT")
    branch: bool = Field(False, description="a target of its own, outside the chain to eval.json")
    algorithm: Literal["grpo", "dpo"]
    prompts: Name = Field(description="a file of config/prompts/")
    iterations: Positive | None = Field(None, description="steps; null = as the epochs say")
    epochs: Positive | None = Field(None, description="passes over the prompts; null = no limit")
    prompts_per_step: Positive
    generations_per_prompt: Positive
    minibatches: Positive = Field(1, description="optimizer steps per batch of rollouts")
    max_sequence: Positive = Field(description="tokens of prompt and completion together")
    generation: Generation
    kl: Rate = Field(description="coefficient of the KL penalty to the initial policy")
    clip_low: Rate = 0.2
    clip_high: Rate = 0.28
    advantage_clip: Rate | None = None
    truncated_importance: Rate | None = Field(None, description="cap of the importance ratio")
    overlong_filter: bool = False
    invalid_tool_calls: Literal["penalize", "mask"] | None = Field(
        None,
        description="rollouts with tool calls that cannot be read; a mask comes with a penalty",
    )
    malformed_thinking: Literal["penalize"] | None = Field(
        None, description="what happens to rollouts whose thinking tags do not match"
    )
    validate_: StepValidate | None = Field(
        None, alias="validate", description="null = never while training (nemo_rl)"
    )
    asynchronous: Asynchronous | None = None
    beta: Rate | None = Field(None, description="strength of the preference loss (dpo)")
    environments: list[str] = Field([], description="servers that score rollouts")
    settings: dict[str, Any] = Field({}, description="what an environment reads, by its own names")
    judges: dict[Name, Judge] = Field({}, description="by the names of their NeMo-Gym servers")
    release: Literal["super-v3", "nano-v3", "v0.5.0", "v0.6.0"] | None = Field(
        None, description="the branch or tag of NeMo-RL that trains; null = super-v3 (nemo_rl)"
    )
    nemo_rl: dict[str, Any] | None = Field(
        None, description="further keys by NeMo-RL's own names; they win over all others"
    )
    seed: Count
    optimizer: Optimizer
    schedule: Schedule
    parallel: Parallel
    spike: Number | None = Field(None, description="as in pretrain")
    options: Options

    @model_validator(mode="after")
    def ends(self) -> "Step":
        """A step has an end."""
        if self.iterations is None and self.epochs is None:
            raise ValueError("set iterations or epochs: the step would never end")
        rollouts = self.prompts_per_step * self.generations_per_prompt
        if rollouts % self.minibatches:
            raise ValueError(
                f"minibatches ({self.minibatches}) does not divide a step's {rollouts} rollouts"
                " (prompts_per_step × generations_per_prompt)"
            )
        return self


class Rl(Strict):
    """Reinforcement learning; keys of a step that stand here are every step's defaults."""

    engine: Literal["nemo_rl", "local"]
    precision: Literal["fp32", "bf16"]
    steps: dict[Name, Step] = Field(min_length=1)


class Export(Strict):
    """Hugging Face checkpoints."""

    dtype: Literal["float32", "bfloat16"]


class Init(Strict):
    """An existing model in the place of the stages before `start`."""

    import_: str = Field(
        alias="import",
        min_length=1,
        description="folder of a Hugging Face or Megatron checkpoint; a relative path counts from"
        " the repository's root",
    )


class Run(Strict):
    """A run: one file of config/, one folder of results/."""

    extends: Name | None = Field(None, description="the run whose keys this one starts from")
    start: str | None = Field(
        None, description="the first stage that this run owns; everything before is the parent's"
    )
    init: Init | None = Field(
        None, description="a model to begin with; needs `start`, and nothing before that exists"
    )
    about: str | None = Field(None, description="one line for `nemoflow runs`")
    seed: Integer = Field(ge=0, description="every stage's default seed")
    gaps: dict[Name, str] = Field({}, description="what the recipe names but nobody has published")
    pretrain: Pretrain
    sft: Sft
    rl: Rl
    export: Export
    eval: Eval
