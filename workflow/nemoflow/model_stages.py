"""What the rules of models do: training, conversion, scores, and the page about a run.

Each needs its inputs, makes its product, and says what it is (see `stages`).
"""

import shutil
from pathlib import Path

from nemoflow.build import Build, bytes_of, heavy
from nemoflow.files import read_json, write_json, write_whole
from nemoflow.machine import SMALLEST, Machine
from nemoflow.progress import say


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
        facts = read_json(folder / "merged.json")
        build.replace_payload(folder / "final")
        shutil.rmtree(folder)
        build.finish(step=content["step"], tokens=content["tokens"], **facts)


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
