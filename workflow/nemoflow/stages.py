"""One function per rule, in pipeline order: the table of contents.

Each needs its inputs, makes its product, and says what it is. Paths are strings relative to the
repository's root; the last one of each is what the rule declares.
"""

from pathlib import Path

from nemoflow import blend as blends
from nemoflow import chat, corpus as corpora, manifest, packing, prompts, scores, tokens as tokenizing
from nemoflow import plan as plans
from nemoflow import report as page
from nemoflow import tokenizer as tokenizers
from nemoflow.build import Build, say, train
from nemoflow.errors import UserError
from nemoflow.files import read_json, write_json
from nemoflow.rows import RowCount


def tokenizer(spec: str, sources: str, output: str) -> None:
    """Fetch a tokenizer at its pinned revision, or train one."""
    with Build(spec, [], [output]) as build:
        folder = build.fresh_payload()
        if trained := build.identity.get("train"):
            texts = (
                row[trained["text_field"]]
                for source in trained["sources"]
                for row in corpora.rows_of(source, Path(sources))
            )
            tokenizers.train(
                texts,
                build.identity["vocab_size"],
                trained["special_tokens"],
                trained["template"],
                folder,
            )
        else:
            tokenizers.fetch(build.identity["hub"], build.identity.get("revision"), folder)
        found = tokenizers.vocabulary(folder)
        if found > build.identity["vocab_size"]:
            raise UserError(
                f"{output}: the tokenizer has {found:,} ids, its file says vocab_size:"
                f" {build.identity['vocab_size']:,}; correct it"
            )
        build.replace_payload(folder)
        build.finish(vocabulary=found)


def plan(spec: str, sources: str, output: str) -> None:
    """List a corpus' files and cut them into parts and shards."""
    with Build(spec, [], [output]) as build:
        cut = build.identity
        files = corpora.list_files(cut["source"], Path(sources))
        build.finish(**plans.make_plan(files, cut["parts"], cut["shards_per_part"]))


def tokens(spec: str, sources: str, plan: str, tokenizer: str, part: str, output: str) -> None:
    """Tokenize one part of a corpus; its finished shards are kept when the job is tried again."""
    with Build(spec, [plan, tokenizer], [output]) as build:
        planned, _ = build.need(plan, tokenizer)
        settings = {"max_tokens": None, **build.identity, **build.options}
        whole = {**planned, "corpus": settings["corpus"], "source": settings["source"]}
        folder = manifest.payload(tokenizer)
        counts = tokenizing.tokenize_part(
            whole, int(part), folder, build.payload, settings, Path(sources)
        )
        build.finish(**counts)


def corpus(spec: str, parts: list[str], output: str) -> None:
    """Join parts into one product; what is left of an earlier, larger number of parts goes."""
    with Build(spec, parts, [output]) as build:
        contents = build.need(*parts)
        counts = tokenizing.join_parts(contents, build.identity["corpus"])
        build.join_payloads(parts)
        build.finish(**counts)


def blend(spec: str, corpora: list[str], output: str) -> None:
    """Give every shard its weight, in each split."""
    with Build(spec, corpora, [output]) as build:
        contents = manifest.read_all(corpora)
        shards = {content["identity"]["corpus"]: content["shards"] for content in contents}
        made, _ = blends.make_blend(build.identity["weights"], shards)
        write_json(output, made)


def pretrain(
    spec: str, blend: str, corpora: list[str], init: str | None, checkpoint: str, curve: str, log: str
) -> None:
    """Train one phase on its blend, from the phase before it."""
    before = [init] if init else []
    with Build(spec, [blend, *corpora, *before], [checkpoint, curve]) as build:
        build.need(*corpora, *before)
        blends.check_blend(blend)
        phase = Path(checkpoint).parent.name
        job = {
            "task": "pretrain",
            "title": f"pretrain.{phase}",
            "config": build.identity,
            "seed": build.identity["seed"],
            "inputs": {"blend": blend, "init": str(manifest.payload(init)) if init else None},
        }
        build.finish(**train(build, job, Path(log)))


def render(spec: str, sources: str, tokenizer: str, output: str) -> None:
    """Turn conversations into tokens and a mask of what to learn."""
    with Build(spec, [tokenizer], [output]) as build:
        build.need(tokenizer)
        source = build.identity["source"]
        files = corpora.list_files(source, Path(sources))
        counts = RowCount()
        rows = corpora.read_source(source, files, Path(sources), counts)
        folder = build.fresh_payload()
        facts = chat.render_source(
            rows, counts, build.identity, manifest.payload(tokenizer), folder
        )
        counts.check(build.options["max_dropped"])
        build.replace_payload(folder)
        build.finish(source_files=[vars(file) for file in files], **facts)


def pack(spec: str, rendered: list[str], output: str) -> None:
    """Pack rendered conversations into rows of equal length."""
    with Build(spec, rendered, [output]) as build:
        build.need(*rendered)
        folder = build.fresh_payload()
        spools = {Path(path).stem: manifest.payload(path) for path in rendered}
        facts = packing.write_packed(spools, build.identity, folder)
        build.replace_payload(folder)
        build.finish(**facts)


def sft(spec: str, init: str, data: str, checkpoint: str, curve: str, log: str) -> None:
    """Fine-tune the last pretrained model on packed conversations."""
    with Build(spec, [init, data], [checkpoint, curve]) as build:
        build.need(init, data)
        job = {
            "task": "sft",
            "title": "sft",
            "config": build.identity,
            "seed": build.identity["seed"],
            "inputs": {
                "data": str(manifest.payload(data)),
                "init": str(manifest.payload(init)),
            },
        }
        build.finish(**train(build, job, Path(log)))


def resolve(spec: str, sources: str, output: str) -> None:
    """Make the rows of a set of prompts whole, and split off validation."""
    with Build(spec, [], [output]) as build:
        folder = build.fresh_payload()
        facts = prompts.resolve_sources(build.identity, build.options, Path(sources), folder)
        build.replace_payload(folder)
        build.finish(**facts)
