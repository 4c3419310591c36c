"""What every training stage sets: optimizer, schedule, batch, parallel sizes, options."""

from typing import Literal

from pydantic import Field, model_validator

from nemoflow.config.base import Count, Positive, Rate, Share, Strict


class Optimizer(Strict):
    """AdamW; weight decay on matrices only."""

    beta1: Share
    beta2: Share
    epsilon: Rate = 1e-8
    weight_decay: Rate
    clip: Rate = Field(description="largest norm of the gradient; 0 = no clipping")


class Schedule(Strict):
    """Learning rate by iteration."""

    style: Literal["wsd", "constant", "cosine"] = Field(
        description="wsd: warm-up, stable, decay; constant and cosine: after the warm-up"
    )
    peak: Rate = Field(description="highest learning rate")
    floor: Rate = Field(description="lowest learning rate, after the warm-up")
    warmup_iterations: Count
    warmup_from: Rate | None = Field(
        None, description="learning rate where the warm-up starts; null = 0 (nemo_rl)"
    )
    decay_iterations: Count = Field(0, description="length of the anneal at the end (wsd)")
    decay_style: Literal["minus_sqrt", "linear", "cosine"] = "minus_sqrt"
    end_iteration: Positive = Field(description="iteration at which the floor is reached")

    @model_validator(mode="after")
    def fits(self) -> "Schedule":
        """Warm-up and anneal lie inside the schedule."""
        if self.warmup_iterations + self.decay_iterations > self.end_iteration:
            raise ValueError(
                f"warmup_iterations ({self.warmup_iterations}) and decay_iterations"
                f" ({self.decay_iterations}) together are longer than the training: end_iteration"
                f" is {self.end_iteration}"
            )
        if self.floor > self.peak:
            raise ValueError(f"floor ({self.floor}) is above peak ({self.peak})")
        return self


class Batch(Strict):
    """Sequences per iteration."""

    global_size: Positive = Field(alias="global", description="sequences per iteration")
    micro: Positive = Field(description="sequences per forward pass and data-parallel rank")
    sequence: Positive = Field(description="tokens per sequence")

    @model_validator(mode="after")
    def divides(self) -> "Batch":
        """The global batch is made of whole micro-batches."""
        if self.global_size % self.micro:
            raise ValueError(
                f"micro ({self.micro}) does not divide global ({self.global_size});"
                " choose a divisor"
            )
        return self


class Parallel(Strict):
    """How the model is cut over GPUs."""

    tensor: Positive = 1
    pipeline: Positive = 1
    context: Positive = 1
    expert: Positive = 1
    expert_tensor: Positive = 1
    sequence: bool = Field(False, description="sequence parallelism; needs tensor > 1")
    dispatcher: Literal["alltoall", "flex", "allgather"] = Field(
        "alltoall", description="how tokens travel to their experts; flex = DeepEP"
    )

    @model_validator(mode="after")
    def agree(self) -> "Parallel":
        """Sequence parallelism cuts along the tensor-parallel group."""
        if self.sequence and self.tensor == 1:
            raise ValueError("sequence parallelism needs tensor > 1; set sequence: false")
        return self


class Validate(Strict):
    """Loss on the validation split."""

    every: Positive = Field(description="iterations between two validations")
    batches: Positive = Field(description="batches per validation")


class Window(Strict):
    """The checkpoints before the end that `merge` averages."""

    iterations: Positive = Field(description="length of the window, back from the last iteration")
    every: Positive = Field(description="iterations between two of its checkpoints")


class Options(Strict):
    """What cannot change a result: changing it rebuilds nothing."""

    log_every: Positive = Field(10, description="iterations between two logged steps")
    save_every: Positive = Field(200, description="iterations between two checkpoints")
    keep: Positive = Field(2, description="newest checkpoints kept while training")
    milestones: Positive | None = Field(
        None, description="iterations between two checkpoints that are kept for good"
    )
    window: Window | None = Field(
        None, description="checkpoints before the end that are kept for good, beside the last one"
    )
    status_seconds: Rate = Field(5.0, description="seconds between two status lines")

    @model_validator(mode="after")
    def saved(self) -> "Options":
        """What is to be kept is saved."""
        asked = {"milestones": self.milestones, "window.every": self.window and self.window.every}
        for key, every in asked.items():
            if every and every % self.save_every:
                raise ValueError(
                    f"{key} ({every}) is no multiple of save_every ({self.save_every}), so no"
                    " checkpoint would be there to keep; choose one"
                )
        return self
