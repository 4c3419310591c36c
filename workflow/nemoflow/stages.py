"""One function per rule, in pipeline order: the table of contents.

Each needs its inputs, makes its product, and says what it is. Paths are strings relative to the
repository's root; the last one of each is what the rule declares. What a stage calls is imported
when it begins: a job that tokenizes waits for no library that another stage needs.
"""

import shutil
from pathlib import Path

from nemoflow import manifest
from nemoflow.build import Build, bytes_of, heavy
from nemoflow.files import read_json, sha256_of, write_json, write_whole
from nemoflow.machine import SMALLEST, Machine
from nemoflow.progress import say


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


@heavy
def import_model(
    spec: str, output: str, parity: str, log: str, machine: Machine = SMALLEST
) -> None:
    """Take an existing model in the place of the stages before the run's first."""
    from nemoflow import imports
    from nemoflow.training import convert

    with Build("import_model", spec, [], [output, parity]) as build:
        folder = build.fresh_payload()
        copied = folder / "model"
        copied.mkdir()
        facts = imports.take(build.identity, build.options, copied)
        if facts["format"] == imports.HUGGINGFACE:
            job = {"task": "import", "title": "import", "inputs": {"model": str(copied)}}
            convert(build, folder, log, machine, **job)
        else:
            imports.unconverted(facts, parity)
            build.replace_payload(copied)
            folder.rmdir()
        build.finish(model=facts)


@heavy
def pretrain(
    spec: str,
    blend: str,
    corpora: list[str],
    init: str | None,
    checkpoint: str,
    curve: str,
    log: str,
    machine: Machine = SMALLEST,
) -> None:
    """Train one phase on its blend, from the phase before it."""
    from nemoflow.blend import check_blend
    from nemoflow.training import train

    before = [init] if init else []
    with Build("pretrain", spec, [blend, *corpora, *before], [checkpoint, curve]) as build:
        build.need(*corpora, *before)
        check_blend(blend)
        inputs = {"blend": blend, "init": bytes_of(init) if init else None}
        title = f"pretrain.{Path(checkpoint).parent.name}"
        build.finish(**train(build, "pretrain", title, log, inputs, machine))


@heavy
def merge(
    spec: str,
    checkpoint: str,
    blend: str | None,
    corpora: list[str],
    output: str,
    log: str,
    machine: Machine = SMALLEST,
) -> None:
    """Average a phase's last checkpoints."""
    from nemoflow import merging
    from nemoflow.training import run_job

    given = [checkpoint, *filter(None, [blend]), *corpora]
    with Build("merge", spec, given, [output]) as build:
        content, *_ = build.need(checkpoint, *corpora)
        folders = merging.checkpoints(checkpoint, content, build.identity)
        folder = build.fresh_payload()
        job = {"task": "merge", "title": f"merged.{Path(output).stem}"}
        job |= {"inputs": {"checkpoints": folders, "blend": blend}}
        run_job(build, folder, log, machine, config=content["identity"], **job)
        facts = merging.told(content, read_json(folder / "merged.json"))
        build.replace_payload(folder / "final")
        shutil.rmtree(folder)
        build.finish(**facts)


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


@heavy
def sft(
    spec: str,
    init: str,
    data: str,
    checkpoint: str,
    curve: str,
    log: str,
    machine: Machine = SMALLEST,
) -> None:
    """Fine-tune the last pretrained model on packed conversations."""
    from nemoflow.training import train

    with Build("sft", spec, [init, data], [checkpoint, curve]) as build:
        build.need(init, data)
        inputs = {"init": bytes_of(init), "data": bytes_of(data)}
        build.finish(**train(build, "sft", "sft", log, inputs, machine))


def resolve(spec: str, sources: str, output: str) -> None:
    """Make the rows of a set of prompts whole, check them, and split off validation."""
    from nemoflow import prompts as rl_rows

    with Build("resolve", spec, [], [output]) as build:
        folder = build.fresh_payload()
        facts = rl_rows.make(build.identity | build.options, folder, Path(sources))
        build.replace_payload(folder)
        build.finish(**facts)


@heavy
def rl(
    spec: str,
    init: str,
    prompts: str,
    checkpoint: str,
    curve: str,
    log: str,
    machine: Machine = SMALLEST,
) -> None:
    """Train one step on its prompts, from the export of the stage before it."""
    from nemoflow.training import train

    with Build("rl", spec, [init, prompts], [checkpoint, curve]) as build:
        build.need(init, prompts)
        inputs = {"init": bytes_of(init), "prompts": bytes_of(prompts)}
        title = f"rl.{Path(checkpoint).parent.name}"
        build.finish(**train(build, "rl", title, log, inputs, machine))


@heavy
def export(
    spec: str,
    checkpoint: str,
    base: str | None,
    tokenizer: str,
    output: str,
    parity: str,
    log: str,
    machine: Machine = SMALLEST,
) -> None:
    """Write a stage's checkpoint in Hugging Face format; adapters are merged into their base."""
    from nemoflow.training import convert

    given = [checkpoint, *filter(None, [base]), tokenizer]
    with Build("export", spec, given, [output, parity]) as build:
        content, *_ = build.need(*given)
        folder = build.fresh_payload()
        inputs = {"checkpoint": bytes_of(checkpoint), "tokenizer": bytes_of(tokenizer)}
        inputs |= {"base": bytes_of(base) if base else None}
        config = {**build.identity, "model": content["identity"]["model"]}
        job = {"task": "export", "title": "export", "inputs": inputs, "config": config}
        convert(build, folder, log, machine, **job)
        build.finish()


@heavy
def eval_task(
    spec: str, model: str, prompts: str | None, output: str, log: str, machine: Machine = SMALLEST
) -> None:
    """Score an exported model on one task."""
    from nemoflow.training import score

    given = [model, prompts] if prompts else [model]
    with Build("eval_task", spec, given, [output]) as build:
        build.need(*given)
        folder = build.fresh_payload()
        found = score(build, folder, log, model, prompts, machine)
        build.replace_payload(folder)
        build.finish(**found)
        say(f"{output}: {found['metric']} {found['value']:.3f} on {found['n']} items")


def eval(spec: str, run: str, models: list[str], scores: list[str], output: str) -> None:
    """Gather the scores of all evaluated stages, with the published ones beside them."""
    from nemoflow.scores import failures, gather

    with Build("eval", spec, [*models, *scores], [output]) as build:
        gathered = gather(run, build.identity, models, scores)
        for line in failures(gathered["stages"]):
            say(f"{output}: {line}")
        # Stages in pipeline order, for whoever reads it.
        write_json(output, gathered, sort_keys=False)


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


def report(
    spec: str,
    eval: str,
    imported: str | None,
    blends: list[str],
    checkpoints: list[str],
    packed: str | None,
    parity: list[str],
    contamination: str | None,
    output: str,
) -> None:
    """Draw the page about a run."""
    from nemoflow import report as page
    from nemoflow.need import need_if_had
    from nemoflow.products import scores_behind

    optional = [path for path in (imported, packed, contamination) if path]
    given = [eval, *blends, *checkpoints, *parity, *optional]
    with Build("report", spec, given, [output]) as build:
        need_if_had(scores_behind([eval]))
        models = (eval, blends, checkpoints, packed, build.options, imported)
        write_whole(output, page.render(*models, parity, contamination))


def seal(checkpoint: str, output: str) -> None:
    """Put a checkpoint and all that led to it into DVC's cache."""
    from nemoflow import sealing

    contents = sealing.heavy([checkpoint])
    sealing.seal(contents)
    sealing.mark(output, contents)


def publish(run: str, eval: str, output: str) -> None:
    """Seal what is not sealed yet, push all of it, and say what to commit."""
    from nemoflow import sealing
    from nemoflow.dvc_yaml import write_dvc_yaml

    contents = sealing.heavy([eval])
    sealing.seal(contents)
    sent = sealing.push(contents)
    write_dvc_yaml()
    sealing.mark(output, contents)
    say(sealing.next_step(run, sent, contents))
