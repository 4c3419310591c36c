"""One function per rule, in pipeline order: the table of contents.

Each needs its inputs, makes its product, and says what it is. Paths are strings relative to the
repository's root; the last one of each is what the rule declares.
"""

import shutil
from pathlib import Path

from nemoflow import blend as blends
from nemoflow import chat, images, imports, manifest, packing, sealing, site
from nemoflow import corpus as corpora
from nemoflow import plan as plans
from nemoflow import prompts as rl_rows
from nemoflow import report as page
from nemoflow import tokenizer as tokenizers
from nemoflow import tokens as tokenizing
from nemoflow.build import Build, bytes_of, heavy, run_job, say, score, train
from nemoflow.dvc_yaml import write_dvc_yaml
from nemoflow.errors import UserError
from nemoflow.files import write_json, write_whole
from nemoflow.machine import SMALLEST, Machine
from nemoflow.need import need_if_had
from nemoflow.products import scores_behind
from nemoflow.rows import RowCount
from nemoflow.scores import gather


def image(spec: str, output: str) -> None:
    """Bring a container image into the site's folder of images."""
    with Build("image", spec, [], [output]) as build:
        images.fetch(Path(output).stem, site.load())
        build.finish()


def tokenizer(spec: str, sources: str, output: str) -> None:
    """Fetch a tokenizer at its pinned revision, or train one."""
    with Build("tokenizer", spec, [], [output]) as build:
        folder = build.fresh_payload()
        if trained := build.identity.get("train"):
            texts = corpora.texts(trained["sources"], trained["text_field"], Path(sources))
            facts = {"source_files": corpora.source_files(trained["sources"], Path(sources))}
            tokenizers.train(
                texts,
                build.identity["vocab_size"],
                trained["special_tokens"],
                trained["template"],
                folder,
            )
        else:
            facts = {}
            tokenizers.fetch(build.identity["hub"], build.identity.get("revision"), folder)
        found = tokenizers.vocabulary(folder)
        if found > build.identity["vocab_size"]:
            raise UserError(
                f"{output}: the tokenizer has {found:,} ids, its file says vocab_size:"
                f" {build.identity['vocab_size']:,}; correct it"
            )
        build.replace_payload(folder)
        build.finish(vocabulary=found, **facts)


def plan(spec: str, sources: str, output: str) -> None:
    """List a corpus' files and cut them into parts and shards."""
    with Build("plan", spec, [], [output]) as build:
        cut = build.identity
        files = corpora.list_files(cut["source"], Path(sources))
        build.finish(**plans.make_plan(files, cut["parts"], cut["shards_per_part"]))


def tokens(spec: str, sources: str, plan: str, tokenizer: str, part: str, output: str) -> None:
    """Tokenize one part of a corpus; its finished shards are kept when the job is tried again."""
    with Build("tokens", spec, [plan, tokenizer], [output]) as build:
        planned, _ = build.need(plan, tokenizer)
        settings = {"max_tokens": None, **build.identity, **build.options}
        folder = manifest.payload(tokenizer)
        counts = tokenizing.tokenize_part(
            planned, int(part), folder, build.payload, settings, Path(sources)
        )
        build.finish(**counts)


def corpus(spec: str, parts: list[str], output: str) -> None:
    """Join parts into one product; what is left of an earlier, larger number of parts goes."""
    with Build("corpus", spec, parts, [output]) as build:
        contents = build.need(*parts)
        counts = tokenizing.join_parts(contents, build.identity["corpus"])
        build.join_payloads(parts)
        build.finish(**counts)


def blend(spec: str, corpora: list[str], output: str) -> None:
    """Give every shard its weight, in each split."""
    with Build("blend", spec, corpora, [output]) as build:
        contents = [manifest.read(path) for path in corpora]  # no bytes are read
        shards = {content["identity"]["corpus"]: content["shards"] for content in contents}
        made, _ = blends.make_blend(build.identity["weights"], shards)
        write_json(output, made)


def import_model(spec: str, output: str) -> None:
    """Take an existing model in the place of the stages before the run's first."""
    with Build("import_model", spec, [], [output]) as build:
        written, model = build.identity["import"], build.identity["model"]
        found = imports.find(written)
        imports.check_model(found, model)
        facts = imports.facts_of(found, model)
        imports.check_use(written, facts, build.options)
        folder = build.fresh_payload()
        imports.copy(found, folder)
        build.replace_payload(folder)
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
    before = [init] if init else []
    with Build("pretrain", spec, [blend, *corpora, *before], [checkpoint, curve]) as build:
        build.need(*corpora, *before)
        blends.check_blend(blend)
        inputs = {"blend": blend, "init": bytes_of(init) if init else None}
        title = f"pretrain.{Path(checkpoint).parent.name}"
        build.finish(**train(build, "pretrain", title, log, inputs, machine))


def render(spec: str, sources: str, tokenizer: str, output: str) -> None:
    """Turn conversations into tokens and a mask of what to learn."""
    with Build("render", spec, [tokenizer], [output]) as build:
        build.need(tokenizer)
        source, cache, counts = build.identity["source"], Path(sources), RowCount()
        files = corpora.list_files(source, cache)
        rows = corpora.read_source(source, files, cache, counts)
        settings = {"used_in": None, **build.identity, **build.options}
        folder = build.fresh_payload()
        facts = chat.render_source(
            rows, settings["template"], bytes_of(tokenizer), settings, folder, counts
        )
        build.replace_payload(folder)
        build.finish(source_files=[vars(file) for file in files], **facts)


def pack(spec: str, rendered: list[str], output: str) -> None:
    """Pack rendered conversations into rows of equal length."""
    with Build("pack", spec, rendered, [output]) as build:
        build.need(*rendered)
        cut = build.identity
        weighted = {
            Path(path).stem: (bytes_of(path), cut["weights"][Path(path).stem]) for path in rendered
        }
        folder = build.fresh_payload()
        facts = packing.write_packed(
            weighted,
            cut["pack_size"],
            cut["pad_multiple"],
            cut["seed"],
            cut["valid_fraction"],
            folder,
        )
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
    with Build("sft", spec, [init, data], [checkpoint, curve]) as build:
        build.need(init, data)
        inputs = {"init": bytes_of(init), "data": bytes_of(data)}
        build.finish(**train(build, "sft", "sft", log, inputs, machine))


def resolve(spec: str, sources: str, output: str) -> None:
    """Check the rows of a set of prompts, and split off validation."""
    with Build("resolve", spec, [], [output]) as build:
        told, cache = build.identity, Path(sources)
        given = told.get("validation")
        folder = build.fresh_payload()
        facts = rl_rows.resolve(
            corpora.rows(told["sources"], cache),
            corpora.rows(given, cache) if given is not None else None,
            told["holdout"],
            told["seed"],
            {"kind": told["kind"]},
            folder,
        )
        build.replace_payload(folder)
        read = corpora.source_files([*told["sources"], *(given or [])], cache)
        build.finish(source_files=read, **facts)


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
    with Build("rl", spec, [init, prompts], [checkpoint, curve]) as build:
        build.need(init, prompts)
        inputs = {"init": bytes_of(init), "prompts": bytes_of(prompts)}
        title = f"rl.{Path(checkpoint).parent.name}"
        build.finish(**train(build, "rl", title, log, inputs, machine))


@heavy
def export(
    spec: str, checkpoint: str, tokenizer: str, output: str, log: str, machine: Machine = SMALLEST
) -> None:
    """Write a stage's checkpoint in Hugging Face format."""
    with Build("export", spec, [checkpoint, tokenizer], [output]) as build:
        content, _ = build.need(checkpoint, tokenizer)
        folder = build.fresh_payload()
        inputs = {"checkpoint": bytes_of(checkpoint), "tokenizer": bytes_of(tokenizer)}
        config = {**build.identity, "model": content["identity"]["model"]}
        job = {"task": "export", "title": "export", "inputs": inputs, "config": config}
        run_job(build, folder, log, machine, **job)
        build.replace_payload(folder / "final")
        shutil.rmtree(folder)
        build.finish()


@heavy
def eval_task(
    spec: str, model: str, prompts: str | None, output: str, log: str, machine: Machine = SMALLEST
) -> None:
    """Score an exported model on one task."""
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
    with Build("eval", spec, [*models, *scores], [output]) as build:
        made = gather(run, build.identity, models, scores)
        write_json(output, made, sort_keys=False)  # stages in pipeline order, for whoever reads it


def report(
    spec: str,
    eval: str,
    imported: str | None,
    blends: list[str],
    checkpoints: list[str],
    packed: str | None,
    output: str,
) -> None:
    """Draw the page about a run."""
    given = [path for path in (imported, packed) if path]
    with Build("report", spec, [eval, *blends, *checkpoints, *given], [output]) as build:
        need_if_had(scores_behind([eval]))
        drawn = page.render(eval, blends, checkpoints, packed, build.options, imported)
        write_whole(output, drawn)


def seal(checkpoint: str, output: str) -> None:
    """Put a checkpoint and all that led to it into DVC's cache."""
    contents = sealing.heavy([checkpoint])
    sealing.seal(contents)
    sealing.mark(output, contents)


def publish(run: str, eval: str, output: str) -> None:
    """Seal what is not sealed yet, push all of it, and say what to commit."""
    contents = sealing.heavy([eval])
    sealing.seal(contents)
    sent = sealing.push(contents)
    write_dvc_yaml()
    sealing.mark(output, contents)
    say(sealing.next_step(run, sent, contents))
