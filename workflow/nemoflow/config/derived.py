"""Corpora that no file of config/corpora/ describes: samples, and imported blends.

`{corpus}-sample{N}` is the first N documents of a corpus. A blend that imports a blend.json is a
corpus of its own name.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from nemoflow.config.data import Blend, Corpus
from nemoflow.errors import UserError

if TYPE_CHECKING:
    from nemoflow.config.load import Config
    from nemoflow.config.run import Run

SAMPLE = re.compile(r"(?P<corpus>.+)-sample(?P<count>[1-9]\d*)")


def corpus(config: "Config", name: str) -> Corpus | None:
    """The corpus of a derived name; None where it has, or would need, a file of its own.

    Raises:
        UserError: it is a sample of an imported corpus, whose documents nobody can choose.
    """
    if name in config.raw["corpora"]:
        return None
    if name in config.raw["blends"]:
        path = config.data("blends", name).import_
        return Corpus.model_validate({"import": path}) if path else None
    found = SAMPLE.fullmatch(name)
    if found is None or not known(config, found["corpus"]):
        return None
    whole = config.data("corpora", found["corpus"])
    if whole.import_ is not None:
        raise UserError(
            f"{name}: {found['corpus']} is imported: its shards come whole, and no sample of them"
            " can be taken; unset pretrain.sample, or tokenize the corpus here"
        )
    cut = {"sample": int(found["count"]), "parts": 1, "shards_per_part": 1}
    return whole.model_copy(update=cut)


def gaps(config: "Config", run: "Run", stage: str) -> list[tuple[str, float | None, str]]:
    """(name, share of the published mix, why) of what a stage's recipe has and nobody can get.

    Prompts have no shares.
    """
    section, _, name = stage.partition(".")
    if section == "rl":
        lacking = config.data("prompts", run.rl.steps[name].prompts).gaps
        return [(name, None, gap.why) for name, gap in lacking.items()]
    if section == "sft":
        mixture = config.data("mixtures", run.sft.mixture)
        there, lacking = sum(one.weight for one in mixture.sources.values()), mixture.gaps
    else:
        blend = config.data("blends", run.pretrain.phases[name].blend)
        there, lacking = sum((blend.weights or {}).values()), blend.gaps
    whole = there + sum(gap.weight for gap in lacking.values())
    return [(name, gap.weight / whole if whole else 0, gap.why) for name, gap in lacking.items()]


def refuse_twin(config: "Config", name: str, blend: Blend) -> None:
    """UserError where a blend's import would become a corpus that has a file of its own."""
    if blend.import_ is not None and name in config.raw["corpora"]:
        raise UserError(
            f"{config.place('blends', name, 'import')}: import: what is imported becomes corpus"
            f" {name}, but config/corpora/{name}.yaml is one already; rename the blend"
        )


def check(config: "Config", run: "Run", phase: str, fail: Callable[..., None]) -> None:
    """That every corpus of a phase can be had as the run asks for it."""
    try:
        for name in weights(config, run, phase):
            config.data("corpora", name)
    except UserError as error:
        fail(str(error), "pretrain", *(("sample",) if run.pretrain.sample else ("phases", phase)))


def known(config: "Config", name: str) -> bool:
    """Whether a corpus has a file, or is an imported blend."""
    return name in config.raw["corpora"] or name in config.raw["blends"]


def weights(config: "Config", run: "Run", phase: str) -> dict[str, float]:
    """The weights of a phase, by the corpora that it reads: samples where the run takes them."""
    name = run.pretrain.phases[phase].blend
    told = config.data("blends", name).weights or {name: 1.0}
    if run.pretrain.sample is None:
        return dict(told)
    return {f"{corpus}-sample{run.pretrain.sample}": weight for corpus, weight in told.items()}
