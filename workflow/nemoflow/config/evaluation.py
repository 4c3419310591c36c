"""The `eval` section of a run: what is scored, by whom, and held against what."""

from typing import Literal

from pydantic import Field, model_validator

from nemoflow.config.base import Name, Number, Positive, Rate, Strict


class Published(Strict):
    """A published score."""

    value: Number
    tolerance: Rate | None = Field(
        None,
        description="largest distance that passes; null = 0.01 and two standard errors of the"
        " score",
    )


class Endpoint(Strict):
    """An OpenAI-style server of the model; its key, if any, is OPENAI_API_KEY's.

    Defaults: those of the recipes' evaluation.
    """

    url: str = Field(pattern="^https?://", description="up to /v1; `{stage}` is the stage's name")
    model: str = Field(min_length=1, description="its name there; `{stage}` as in url")
    parallel: Positive = Field(4, description="requests at a time")
    retries: Positive = Field(5, description="attempts at a request")
    timeout: Positive = Field(6000, description="seconds that a request may take")


class Eval(Strict):
    """Scores of the exported models by lm-eval."""

    stages: list[str] = Field(min_length=1, description="pretrain, merged, sft, rl, or one by name")
    tasks: list[Name] = Field(min_length=1, description="files of config/tasks/: tasks, suites")
    backend: Literal["hf", "vllm", "endpoint"]
    endpoint: Endpoint | None = Field(None, description="where a server answers, not we")
    batch_size: Positive = 64
    published: dict[str, dict[Name, Published]] = {}
    contamination: list[Literal["pretrain", "sft", "rl"]] | None = Field(
        None, description="sections whose training data is searched for the tasks' items"
    )

    @model_validator(mode="after")
    def served(self) -> "Eval":
        """Backend `endpoint` has one, and every stage a model of its own there."""
        if self.backend != "endpoint":
            return self
        if self.endpoint is None:
            raise ValueError("backend: endpoint needs eval.endpoint: {url: …, model: …}")
        if len(self.stages) > 1 and "{stage}" not in self.endpoint.url + self.endpoint.model:
            raise ValueError(
                "endpoint: one model would be scored as that of each stage; write {stage} into url"
                " or model, or evaluate one stage"
            )
        return self
