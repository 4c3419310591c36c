"""The models of the data files: tokenizers, corpora, blends, mixtures, prompts, tasks."""

from typing import Any, Literal

from pydantic import Field, model_validator

from nemoflow.config.base import Count, Name, Positive, Rate, Share, Strict
from nemoflow.config.gap import Gap
from nemoflow.config.mixture import Mixture
from nemoflow.config.prompts import Prompts
from nemoflow.config.source import REPOSITORY, Source

DTYPE_LIMITS = {"uint16": 2**16, "int32": 2**31}


class Train(Strict):
    """A byte-level BPE tokenizer trained here."""

    sources: list[Source] = Field(min_length=1)
    text_field: str = "text"
    special_tokens: list[str] = Field(min_length=1)
    template: Name = Field(description="a file of config/templates/")


class Tokenizer(Strict):
    """A tokenizer: pinned on the hub, in a folder of this machine, or trained."""

    about: str | None = None
    hub: str | None = Field(
        None, pattern=REPOSITORY, description="a repository of the hub with a tokenizer"
    )
    revision: str | None = Field(
        None, description="a commit, tag or branch (null = main), pinned to a commit when fetched"
    )
    local: str | None = Field(None, min_length=1, description="a folder that holds a tokenizer")
    train: Train | None = None
    vocab_size: Positive = Field(description="number of token ids")
    dtype: Literal["int32", "uint16"] = Field("int32", description="of the ids in bin/idx shards")

    @model_validator(mode="after")
    def fits(self) -> "Tokenizer":
        """One origin, and ids that fit the shards' type."""
        if sum(origin is not None for origin in (self.hub, self.local, self.train)) != 1:
            raise ValueError("say exactly one of hub, local, train")
        if self.vocab_size > DTYPE_LIMITS[self.dtype]:
            raise ValueError(
                f"vocab_size ({self.vocab_size:,}) is too large for dtype {self.dtype}, which holds"
                f" ids below {DTYPE_LIMITS[self.dtype]:,}; set dtype: int32"
            )
        return self


class Splits(Strict):
    """Shares of the documents held out, chosen by a seeded hash."""

    valid: Share
    test: Share


class Corpus(Strict):
    """A corpus of documents, tokenized into bin/idx shards; or shards that exist, imported."""

    about: str | None = None
    source: Source | None = Field(None, description="where its rows come from; or say import")
    import_: str | None = Field(
        None,
        alias="import",
        min_length=1,
        description="existing bin/idx shards instead of a source: a prefix, a folder, a glob, or a"
        " blend.json of Megatron; a relative path counts from the repository's root",
    )
    text_field: str = "text"
    parts: Positive | None = Field(None, description="jobs that tokenize it side by side")
    shards_per_part: Positive = 1
    add_bos: bool = False
    add_eos: bool = True
    min_doc_chars: Count = Field(0, description="shorter documents are dropped, and counted")
    max_doc_tokens: Positive | None = Field(
        None, description="longer documents are cut, and counted; the EOS is kept"
    )
    special_tokens: Literal["keep", "split", "drop"] = Field(
        "keep",
        description="what becomes of a text that holds the string of a control token: it counts as"
        " the token, or as ordinary text, or the document is dropped; counted in any case",
    )
    max_dropped: Share = Field(0.001, description="a larger share of faulty rows fails the job")
    splits: Splits = Splits(valid=0.001, test=0.001)
    seed: Count = 42
    sample: Positive | None = Field(
        None, description="the first N documents only; pretrain.sample sets it for a whole run"
    )

    @model_validator(mode="after")
    def one_origin(self) -> "Corpus":
        """Rows to tokenize, or shards to import; a sample has one part."""
        if self.import_ is not None:
            own = {"about", "import_"}
            if wrong := sorted(self.model_fields_set - own):
                raise ValueError(f"an imported corpus has no {', '.join(wrong)}")
            return self
        if self.source is None or self.parts is None:
            raise ValueError("say source and parts, or import alone")
        if self.sample and (self.parts, self.shards_per_part) != (1, 1):
            raise ValueError("a sample is of one piece: say parts: 1, and no shards_per_part")
        return self


class Blend(Strict):
    """Corpora and their weights in pretraining; or a blend.json of Megatron, imported."""

    about: str | None = None
    weights: dict[Name, Rate] | None = Field(
        None,
        min_length=1,
        description="relative, by corpus; 0 = tokenized, but not trained on; or say import",
    )
    import_: str | None = Field(
        None,
        alias="import",
        min_length=1,
        description="a blend.json of Megatron instead of weights: its shards become one corpus,"
        " named like the blend, in which each keeps its weight",
    )
    gaps: dict[Name, Gap] = {}

    @model_validator(mode="after")
    def some(self) -> "Blend":
        """Weights or an import; at least one corpus has weight."""
        if (self.weights is None) == (self.import_ is None):
            raise ValueError("say exactly one of weights, import")
        if self.weights is not None and not any(self.weights.values()):
            raise ValueError("every weight is 0: the blend would be empty")
        return self


class Items(Strict):
    """Where the items of a task lie."""

    source: Source
    text_field: str = Field(min_length=1, description="a dotted field: the text of an item")


class Sampling(Strict):
    """How answers are drawn; what is not set is as the task itself has it."""

    temperature: Rate | None = Field(None, description="0 = greedy")
    top_p: Share | None = None
    top_k: Positive | None = None
    max_new_tokens: Positive | None = None
    until: list[str] | None = Field(None, min_length=1, description="strings that end an answer")


class Task(Strict):
    """An lm-eval task, one of the harness's own by name or one of ours in full; or a suite."""

    about: str | None = None
    suite: list[Name] | None = Field(
        None,
        min_length=1,
        description="tasks, or suites, that this name stands for; or say harness",
    )
    harness: str | dict[str, Any] | None = Field(
        None, description="a task or group of lm-eval by name, or a task mapping as it takes them"
    )
    prompts: Name | None = Field(
        None, description="our items: the validation split of these prompts"
    )
    items: Items | None = Field(
        None, description="where the harness's items lie, for apart_from of prompts"
    )
    metric: str | None = Field(
        None,
        pattern="^[^,]+,[^,]+$",
        description="the metric reported, as lm-eval names it: metric,filter",
    )
    fewshot: Count = 0
    chat: bool = Field(False, description="put the prompt into the model's chat template")
    generation: Sampling | None = Field(None, description="of a task whose answers are written")
    limit: Positive | None = Field(None, description="first N items only")

    @model_validator(mode="after")
    def one_kind(self) -> "Task":
        """A suite has tasks alone; a task of ours has items, one of the harness brings its own."""
        if self.suite is not None:
            if wrong := sorted(self.model_fields_set - {"about", "suite"}):
                raise ValueError(f"a suite has no {', '.join(wrong)}")
            return self
        if self.harness is None or self.metric is None:
            raise ValueError("say harness and metric, or suite alone")
        if isinstance(self.harness, str) != (self.prompts is None):
            raise ValueError("a task of ours (harness: a mapping) needs prompts, and only that one")
        if self.prompts is not None and self.items is not None:
            raise ValueError("items: those of a task of ours are in its prompts")
        if self.generation and self.is_rated:
            raise ValueError("generation: the task rates given answers; nothing is written")
        return self

    @property
    def is_rated(self) -> bool:
        """Whether a task of ours asks for likelihoods, as multiple choice does."""
        told = self.harness if isinstance(self.harness, dict) else {}
        return told.get("output_type", "generate_until") != "generate_until"


KINDS: dict[str, type[Strict]] = {
    "tokenizers": Tokenizer,
    "corpora": Corpus,
    "blends": Blend,
    "mixtures": Mixture,
    "prompts": Prompts,
    "tasks": Task,
}
