"""The model of prompts: rows for reinforcement learning, and items of an evaluation of our own."""

from typing import Literal

from pydantic import Field, model_validator

from nemoflow.config.base import Count, Name, Positive, Share, Strict
from nemoflow.config.gap import Gap
from nemoflow.config.source import Source


class Expected(Strict):
    """What a set of prompts is assumed to be, where hours are estimated before it is built."""

    rows: Positive = Field(description="rows of the training split")
    tokens: Positive = Field(description="mean length of a rollout, its prompt included")


class External(Strict):
    """A set that rows stand for with a placeholder, `_hf_placeholder: {row, question_template}`."""

    source: Source
    style: Literal["dapo", "skywork"] = Field(
        description="dapo: the question without its first and last paragraph, between the"
        " template's prefix and suffix; skywork: the question in the place of {question}"
    )
    question: str = Field("prompt.0.content", description="where the question lies in a row of it")
    answer: str = Field("reward_model.ground_truth", description="and where the answer")


class Agent(Strict):
    """The environment of a row, for NeMo-Gym."""

    name: str = Field(min_length=1)
    type: str = Field("responses_api_agents", min_length=1)


class Prompts(Strict):
    """Rows for reinforcement learning, or items of an evaluation of our own."""

    about: str | None = None
    import_: str | None = Field(
        None,
        alias="import",
        min_length=1,
        description="rows that are split already, instead of sources: a folder with train.jsonl"
        " (and validation.jsonl), or one file; a relative path counts from the repository's root",
    )
    kind: Literal["rl", "pairs", "items"] = Field(
        "rl", description="rl rows name their environment; pairs of answers are for dpo"
    )
    sources: list[Source] = Field([], description="rows of the training split")
    validation: list[Source] | None = Field(None, description="rows of the validation split")
    holdout: Count = Field(0, description="rows moved from training to validation, stratified")
    external: dict[str, External] = Field(
        {}, description="by the `dataset` of the rows that stand for rows of it"
    )
    agent: Agent | None = Field(
        None, description="agent_ref of rows that have none; null = every row must have one"
    )
    apart_from: list[Name] = Field(
        [],
        description="tasks whose items are not trained on: a row of which one message has 13"
        " successive words of an item, or the words of a shorter item and no others, is dropped"
        " (words: letters and digits after NFKC, without case)",
    )
    difficulty: str | None = Field(
        None,
        description="a dotted field that every row has, a number; the manifest tells its range",
    )
    max_dropped: Share = Field(0.0, description="a larger share of unusable rows fails")
    expected: Expected | None = Field(None, description="for estimates only; null = no estimate")
    seed: Count = 42
    gaps: dict[Name, Gap] = {}

    @model_validator(mode="after")
    def some(self) -> "Prompts":
        """There are rows, and one way to a validation split."""
        if self.kind != "rl" and self.agent:
            raise ValueError(f"agent is for kind: rl, not {self.kind}")
        if self.import_ is not None:
            own = {"about", "import_", "kind", "difficulty", "expected", "gaps"}
            if wrong := sorted(self.model_fields_set - own):
                raise ValueError(f"imported rows are taken as they are: no {', '.join(wrong)}")
            return self
        if not self.sources and not self.validation:
            raise ValueError("say sources, validation, or both; or import alone")
        if self.validation is not None and self.holdout:
            raise ValueError("say validation or holdout, not both")
        return self
