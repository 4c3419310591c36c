"""One function per rule, in pipeline order: the table of contents.

Paths are strings relative to the repository's root; the last one of each is what the rule declares.
What a stage calls is imported when it begins: a job that tokenizes waits for no library that
another stage needs.
"""

from nemoflow.data_stages import (
    blend,
    contamination,
    corpus,
    eval_items,
    image,
    overlap,
    pack,
    plan,
    render,
    resolve,
    tokenizer,
    tokens,
)
from nemoflow.model_stages import (
    eval,
    eval_task,
    export,
    import_model,
    merge,
    pretrain,
    publish,
    report,
    rl,
    seal,
    sft,
)

__all__ = [
    "image",
    "tokenizer",
    "plan",
    "tokens",
    "corpus",
    "blend",
    "import_model",
    "pretrain",
    "merge",
    "render",
    "pack",
    "sft",
    "resolve",
    "rl",
    "export",
    "eval_task",
    "eval",
    "eval_items",
    "overlap",
    "contamination",
    "report",
    "seal",
    "publish",
]
