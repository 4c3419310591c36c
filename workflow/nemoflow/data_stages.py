"""What the rules of data do, and of software: from sources to what is trained on, shared by runs.

Each needs its inputs, makes its product, and says what it is (see `stages`).
"""

import shutil
from pathlib import Path

from nemoflow import manifest
from nemoflow.build import Build, bytes_of
from nemoflow.files import sha256_of, write_json


def image(spec: str, output: str) -> None:
    """Bring a container image into the site's folder of images."""
    from nemoflow import images, site

    with Build("image", spec, [], [output]) as build:
        images.fetch(Path(output).stem, site.load())
        build.finish()


def tokenizer(spec: str, sources: str, output: str) -> None:
    """Fetch a tokenizer at its pinned revision, or train one."""
    from nemoflow import tokenizer as tokenizers

    with Build("tokenizer", spec, [], [output]) as build:
        folder = build.fresh_payload()
        facts = tokenizers.make(build.identity, folder, Path(sources))
        build.replace_payload(folder)
        build.finish(**facts)


def plan(spec: str, sources: str, output: str) -> None:
    """List a corpus' files and cut them into parts and shards."""
    from nemoflow import corpus as corpora
    from nemoflow import plan as plans

    with Build("plan", spec, [], [output]) as build:
        cut = build.identity
        source = corpora.pin(cut["source"])
        files = corpora.list_files(source, Path(sources))
        made = plans.make_plan(files, cut["parts"], cut["shards_per_part"])
        build.finish(pinned=corpora.pinned(source), **made)


def tokens(
    spec: str, sources: str, plan: str, tokenizer: str, part: str, workers: int, output: str
) -> None:
    """Tokenize one part of a corpus; its finished shards are kept when the job is tried again."""
    from nemoflow import tokens as tokenizing

    with Build("tokens", spec, [plan, tokenizer], [output]) as build:
        planned, _ = build.need(plan, tokenizer)
        settings = build.identity | build.options
        settings |= {"source": settings["source"] | planned["pinned"]}
        made = planned, int(part), bytes_of(tokenizer), build.payload, settings
        facts = tokenizing.tokenize_part(*made, Path(sources), workers)
        manifest.remember(output, tokenizing.digests(build.payload))
        build.finish(**facts)


def corpus(spec: str, parts: list[str], tokenizer: str | None, output: str) -> None:
    """Join parts into one product; what is left of an earlier, larger number of parts goes.

    Or import shards that exist, whose ids must be those of the tokenizer.
    """
    from nemoflow import import_shards
    from nemoflow import tokens as tokenizing

    given = [*parts, tokenizer] if tokenizer else parts
    with Build("corpus", spec, given, [output]) as build:
        if written := build.identity.get("import"):
            vocabulary = manifest.read(tokenizer)["vocabulary"]  # no bytes are read
            folder, dtype = build.fresh_payload(), build.identity["dtype"]
            facts = import_shards.take(written, dtype, vocabulary, folder, build.payload)
            build.replace_payload(folder)
            return build.finish(**facts)
        facts = tokenizing.join_parts(build.need(*parts), build.identity["corpus"])
        build.join_payloads(parts)
        build.finish(**facts)


def blend(spec: str, corpora: list[str], output: str) -> None:
    """Give every shard its weight, in each split."""
    from nemoflow import blend as blends

    with Build("blend", spec, corpora, [output]) as build:
        contents = [manifest.read(path) for path in corpora]  # no bytes are read
        shards = {content["identity"]["corpus"]: content["shards"] for content in contents}
        write_json(output, blends.make_blend(build.identity["weights"], shards))


def render(spec: str, sources: str, tokenizer: str, workers: int, output: str) -> None:
    """Turn conversations into tokens and a mask of what to learn."""
    from nemoflow import rendering

    with Build("render", spec, [tokenizer], [output]) as build:
        build.need(tokenizer)
        folder = build.fresh_payload()
        asked = build.identity | build.options
        facts = rendering.make(asked, bytes_of(tokenizer), folder, Path(sources), workers)
        build.replace_payload(folder)
        build.finish(**facts)


def pack(spec: str, rendered: list[str], tokenizer: str | None, output: str) -> None:
    """Pack rendered conversations into rows of equal length, or import rows that exist."""
    from nemoflow import packing

    with Build("pack", spec, [*rendered, *filter(None, [tokenizer])], [output]) as build:
        build.need(*rendered)
        folder = build.fresh_payload()
        if "import" in build.identity:
            from nemoflow import import_packed

            facts = import_packed.take(build.identity, manifest.read(tokenizer), folder)
        else:
            spools = {Path(path).stem: bytes_of(path) for path in rendered}
            facts = packing.write_packed(spools, build.identity, folder)
        build.replace_payload(folder)
        build.finish(**facts)


def resolve(spec: str, sources: str, output: str) -> None:
    """Make the rows of a set of prompts whole, check them, and split off validation."""
    from nemoflow import prompts as rl_rows

    with Build("resolve", spec, [], [output]) as build:
        folder = build.fresh_payload()
        facts = rl_rows.make(build.identity | build.options, folder, Path(sources))
        build.replace_payload(folder)
        build.finish(**facts)


def eval_items(spec: str, sources: str, prompts: str | None, output: str) -> None:
    """Write down the texts of a task's items."""
    from nemoflow import evaluation_items

    given = [prompts] if prompts else []
    with Build("eval_items", spec, given, [output]) as build:
        build.need(*given)
        folder, told = build.fresh_payload(), build.identity.get("items")
        rows = Path(bytes_of(prompts)) if prompts else None
        facts = evaluation_items.make(told, rows, folder, Path(sources))
        build.replace_payload(folder)
        build.finish(**facts)


def overlap(
    spec: str, items: list[str], data: str, tokenizer: str | None, workers: int, output: str
) -> None:
    """Look for items of evaluations in what a stage trains on."""
    from nemoflow import contamination as search

    given = [*items, data, *filter(None, [tokenizer])]
    with Build("overlap", spec, given, [output]) as build:
        product = build.need(*given)[len(items)]
        decoder = bytes_of(tokenizer) if tokenizer else None
        job = search.Job(build.identity["kind"], product, Path(bytes_of(data)), decoder)
        work = build.payload.with_name(f".{build.payload.name}.new")
        kept = search.Kept(work, [build.identity, *map(sha256_of, build.inputs)])
        build.finish(**search.search(job, search.tasks_of(items), kept, workers))
        shutil.rmtree(work, ignore_errors=True)


def contamination(spec: str, run: str, overlaps: list[str], output: str) -> None:
    """Gather how many items of evaluations a run has seen in training."""
    from nemoflow.contamination import gather

    with Build("contamination", spec, overlaps, [output]) as build:
        write_json(output, gather(run, build.identity["unchecked"], overlaps))
