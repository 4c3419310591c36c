"""The model of a mixture: conversations, rendered and packed for supervised fine-tuning."""

from typing import Literal

from pydantic import Field, model_validator

from nemoflow.config.base import Count, Integer, Name, Number, Positive, Rate, Share, Strict
from nemoflow.config.gap import Gap
from nemoflow.config.source import Source

Scalar = bool | Integer | Number | str


class Condition(Strict):
    """What a field must be for a row to stay: all that is said here."""

    among: list[Scalar] | None = Field(
        None, alias="in", min_length=1, description="one of these; of a list, any of its elements"
    )
    not_in: list[Scalar] | None = Field(None, min_length=1, description="none of these")
    min: Number | None = Field(None, description="a number not below this")
    max: Number | None = Field(None, description="a number not above this")

    @model_validator(mode="after")
    def some(self) -> "Condition":
        """Something is asked."""
        if not self.model_fields_set:
            raise ValueError("say in, not_in, min or max")
        return self


class Budget(Strict):
    """Reasoning that is cut, so that the model learns to answer when it must stop to think."""

    share: Share = Field(description="of the rows that reason, chosen by a hash of their place")
    tokens: list[Positive] = Field(
        [256, 8192],
        min_length=2,
        max_length=2,
        description="least and most; each row draws its budget between, uniform in the logarithm",
    )

    @model_validator(mode="after")
    def ordered(self) -> "Budget":
        """From the smaller to the larger."""
        if self.tokens[0] > self.tokens[1]:
            raise ValueError(f"tokens: {list(self.tokens)}: the smaller number comes first")
        return self


class Reasoning(Strict):
    """What becomes of an assistant's reasoning (reasoning_content); without it: rendered as is."""

    off: Share = Field(0.0, description="share of the rows that reason rendered without it")
    low_effort: Share = Field(
        0.0, description="share rendered as of low effort (template argument low_effort)"
    )
    budget: Budget | None = None
    history: Literal["drop", "keep"] = Field(
        "drop",
        description="reasoning of turns before the last user's; drop: as chat servers do, so a row"
        " that reasons gives a sequence for each of its user turns",
    )

    @model_validator(mode="after")
    def together(self) -> "Reasoning":
        """A row is in one of the modes."""
        if self.off + self.low_effort + (self.budget.share if self.budget else 0) > 1:
            raise ValueError("off, low_effort and budget.share are shares of one whole: at most 1")
        return self


class MixtureSource(Strict):
    """A set of conversations."""

    source: Source
    weight: Rate
    messages_field: str = Field("messages", description="dotted where it lies inside of another")
    tools_field: str = Field("tools", description="likewise")
    id_field: str = Field("id", description="what is a row's own, where rows have it")
    duplicates: Literal["drop", "keep"] = Field(
        "drop", description="rows whose id another row has had; dropped, they count as faulty"
    )
    used_in: str | None = Field(
        None, description="keep rows whose used_in, a list or names with commas, has this one"
    )
    filters: dict[str, Scalar | list[Scalar] | Condition] = Field(
        {},
        description="rows to keep, by dotted field: a value, a list of values, or in, not_in, min,"
        " max; a row without the field goes",
    )
    reasoning: Reasoning | None = Field(None, description="null = the mixture's")


class Mixture(Strict):
    """Conversations, rendered and packed for supervised fine-tuning; or packed rows, imported."""

    about: str | None = None
    import_: str | None = Field(
        None,
        alias="import",
        min_length=1,
        description="packed Parquet that exists, instead of sources: a folder with train/ (and"
        " valid/), or the files of train; a relative path counts from the repository's root",
    )
    tokenizer: Name
    template: str | None = Field(
        None,
        min_length=1,
        description="a file of config/templates/ by name, a path that ends in .jinja, or the text"
        " itself, which holds {{ or {%",
    )
    pack_size: Positive = Field(description="tokens per packed row")
    pad_multiple: Positive = Field(
        1, description="(length - 1) of each sequence is padded to it: 2 × context parallelism"
    )
    algorithm: Literal["best_fit", "first_fit_shuffle", "concatenative"] = Field(
        "best_fit", description="best_fit fills rows best; the others are for comparison"
    )
    too_long: Literal["truncate", "drop", "split"] = Field(
        "truncate", description="what becomes of a sequence that is longer than a packed row"
    )
    weigh_by: Literal["rows", "tokens"] = Field(
        "rows", description="what the weights are shares of"
    )
    valid_fraction: Share = 0.01
    max_dropped: Share = Field(0.01, description="a larger share of faulty rows fails the job")
    reasoning: Reasoning = Reasoning()
    seed: Count = 42
    sources: dict[Name, MixtureSource] = {}
    gaps: dict[Name, Gap] = {}

    @model_validator(mode="after")
    def one_origin(self) -> "Mixture":
        """Conversations, at least some with weight, or packed rows to import."""
        if self.import_ is not None:
            own = {"about", "import_", "tokenizer", "pack_size", "pad_multiple"}
            if wrong := sorted(self.model_fields_set - own):
                raise ValueError(f"an imported mixture has no {', '.join(wrong)}")
            return self
        if not self.sources or self.template is None:
            raise ValueError("say sources and template, or import alone")
        if not any(source.weight for source in self.sources.values()):
            raise ValueError("every weight is 0: the mixture would be empty")
        return self
