"""A key changes the specs of exactly the stages that read it; nothing else does."""

import fnmatch
import json
import warnings
from types import SimpleNamespace

import pytest
from pydantic import BaseModel

from nemoflow import graph, specs
from nemoflow.config import Config, yaml12
from nemoflow.config.base import plain
from nemoflow.config.data import KINDS, Gap, Items
from nemoflow.config.mixture import Reasoning
from nemoflow.config.run import Lora
from nemoflow.names import Names

RUN = "super3-tiny"
USED = {  # a data file of each kind that this run uses
    "tokenizers": "tiny",
    "corpora": "tiny-facts",
    "blends": "tiny-phase1",
    "mixtures": "tiny",
    "prompts": "tiny-problems",
    "tasks": "tiny_facts",
}
JOBS = {
    **{f"pretrain {p}": ("pretrain", {"run": RUN, "phase": p}) for p in ("phase1", "phase2")},
    **{f"blend {p}": ("blend", {"run": RUN, "phase": p}) for p in ("phase1", "phase2")},
    "merge": ("merge", {"run": RUN, "phase": "phase2", "window": "last"}),
    "sft": ("sft", {"run": RUN}),
    **{f"rl {step}": ("rl", {"run": RUN, "step": step}) for step in ("rlvr1", "rlvr2")},
    **{f"export {s}": ("export", {"run": RUN, "stage": s}) for s in ("pretrain", "sft", "rl")},
    "eval_task": ("eval_task", {"run": RUN, "stage": "sft", "task": "tiny_facts"}),
    "eval": ("eval", {"run": RUN}),
    "eval_items": ("eval_items", {"task": "tiny_facts"}),
    "overlap": ("overlap", {"run": RUN, "kind": "pretrain", "data": "tiny-facts"}),
    "contamination": ("contamination", {"run": RUN}),
    "report": ("report", {"run": RUN}),
    "tokenizer": ("tokenizer", {"tokenizer": "tiny"}),
    "plan": ("plan", {"corpus": "tiny-facts"}),
    "tokens": ("tokens", {"tokenizer": "tiny", "corpus": "tiny-facts", "part": "0000"}),
    "corpus": ("corpus", {"tokenizer": "tiny", "corpus": "tiny-facts"}),
    "render": ("render", {"mixture": "tiny", "source": "chats"}),
    "pack": ("pack", {"mixture": "tiny"}),
    "resolve": ("resolve", {"prompts": "tiny-problems"}),
}
TRAINED = {job for job in JOBS if job.startswith(("pretrain", "sft", "rl"))}
INPUT = OPTION = NOTHING = set()  # another file is an input; no result changes; for people

# Of each key the specs that it changes; the first pattern that matches counts.
READERS = {
    # the run
    "run.extends": NOTHING, "run.start": NOTHING, "run.init": NOTHING, "run.about": NOTHING,
    "run.gaps": NOTHING, "run.seed": NOTHING,  # the seed is spread over the sections
    "run.pretrain.phases.phase2.options.window.every": {"merge"},
    "run.*.options.*": OPTION, "run.*.spike": OPTION,
    "run.pretrain.tokenizer": INPUT, "run.pretrain.phases.*.blend": INPUT,
    "run.pretrain.phases.*.after": INPUT,
    "run.pretrain.sample": {"blend phase1", "blend phase2"},
    "run.pretrain.engine": {"pretrain phase1", "pretrain phase2", "merge", "export pretrain"},
    "run.pretrain.model.*": TRAINED | {"merge"},
    "run.pretrain.merge.phase": INPUT, "run.pretrain.merge.windows": {"merge"},
    "run.pretrain.phases.phase1.*": {"pretrain phase1"},
    "run.pretrain.phases.phase2.*": {"pretrain phase2"},
    "run.pretrain.*": {"pretrain phase1", "pretrain phase2"},
    "run.sft.mixture": INPUT,
    "run.sft.engine": {"sft", "export sft"}, "run.sft.lora": {"sft", "export sft"},
    "run.sft.*": {"sft"},
    "run.rl.steps.*.prompts": INPUT, "run.rl.steps.*.after": INPUT, "run.rl.steps.*.branch": INPUT,
    "run.rl.engine": {"rl rlvr1", "rl rlvr2", "export rl"},
    "run.rl.precision": {"rl rlvr1", "rl rlvr2"},
    "run.rl.steps.rlvr1.*": {"rl rlvr1"},
    "run.rl.steps.rlvr2.*": {"rl rlvr2"},
    "run.export.dtype": {"export pretrain", "export sft", "export rl"},
    "run.eval.backend": {"eval_task"}, "run.eval.batch_size": {"eval_task"},
    "run.eval.endpoint": OPTION, "run.eval.contamination": INPUT,
    "run.eval.*": {"eval"},
    # data files
    "*.about": NOTHING, "*.gaps": NOTHING, "*.max_dropped": OPTION,
    "tokenizers.dtype": {"tokens", "corpus"},
    "tokenizers.*": {"tokenizer"},
    "corpora.source.*": {"plan"}, "corpora.shards_per_part": {"plan"},
    "corpora.import": {"corpus"},
    "corpora.parts": {"plan", "corpus"},
    "corpora.*": {"tokens", "corpus"},
    "blends.import": INPUT, "blends.*": {"blend phase1"},
    "mixtures.tokenizer": INPUT,
    "mixtures.template": {"render"}, "mixtures.reasoning.*": {"render"},
    "mixtures.sources.*.weight": {"pack"},
    "mixtures.sources.*": {"render"},
    "mixtures.*": {"pack"},
    "prompts.expected": NOTHING, "prompts.*": {"resolve"},
    "tasks.suite": INPUT, "tasks.prompts": INPUT,
    "tasks.items": {"eval_items"},  # and of the prompts that are kept apart from them
    "tasks.*": {"eval_task"},
}  # fmt: skip

MADE = {  # unset sections, set
    "reasoning": Reasoning(off=0.5),
    "lora": Lora(),
    "items": Items(source={"local": "items.jsonl"}, text_field="question"),
}


class Changed(Config):
    """A config in which one model is another."""

    def __init__(self, config, kind, model):
        self.inner, self.kind, self.model = config, kind, model

    def run(self, name):
        return self.model if self.kind == "run" else self.inner.run(name)

    def data(self, kind, name):
        name = name.removesuffix("-x")  # another name of the same content
        if (kind, name) == ("tasks", "x"):
            name = USED["tasks"]  # an element that a list did not have
        changed = self.kind == kind and name == USED[kind]
        return self.model if changed else self.inner.data(kind, name)

    def template(self, name):
        known = self.inner.raw["templates"]
        return known.get(name, f"another template, {name}")


def other(value):
    """Some other value of the same type; validity is not asked here."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value * 2 + 1
        case str():
            return f"{value}-x"
        case list():
            return [*value, value[0] if value else "x"]
        case dict() if all(isinstance(held, int) for held in value.values()):
            return {name: held + 1 for name, held in value.items()} or {"more": 1}
        case dict():
            return {**value, "more": 1}
    return 7  # an optional key that is not set


def changes(model, key=()):
    """(key, the model with another value at this key) for every leaf, by model_copy: unchecked."""
    for name, field in type(model).model_fields.items():
        value, at = getattr(model, name), (*key, field.alias or name)
        if isinstance(value, BaseModel):
            inner = changes(value, at)
        elif isinstance(value, dict) and any(isinstance(v, BaseModel) for v in value.values()):
            inner = (
                (k, {**value, entry: changed})
                for entry, entered in value.items()
                for k, changed in changes(entered, (*at, entry))
            )
        elif at == ("gaps",):
            inner = [(at, {"more": Gap(weight=1.0, why="internal")})]
        elif at[-1] in MADE:
            inner = [(at, MADE[at[-1]])]
        else:
            inner = [(at, other(value))]
        for k, changed in inner:
            yield k, model.model_copy(update={name: changed})


def digests(config, jobs=JOBS):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydantic's, about unchecked values
        return {job: specs.of(config, stage, named).name for job, (stage, named) in jobs.items()}


def readers(key):
    return next(set(read) for pattern, read in READERS.items() if fnmatch.fnmatch(key, pattern))


def tried(config):
    models = {"run": config.run(RUN), **{k: config.data(k, name) for k, name in USED.items()}}
    for kind, model in models.items():
        for key, changed in changes(model):
            yield ".".join((kind, *key)), Changed(config, kind, changed)


def test_every_key_changes_exactly_the_specs_of_the_stages_that_read_it(config):
    before, wrong, count = digests(config), [], 0
    for key, changed in tried(config):
        count += 1
        known = readers(key)
        # such a change alone leaves no line of stages
        alone = key.endswith((".after", ".branch", "run.start", "run.init"))
        jobs = {job: JOBS[job] for job in JOBS if not (alone and job.startswith(("export", "rep")))}
        found = {job for job, digest in digests(changed, jobs).items() if before[job] != digest}
        if found != known:
            wrong.append(f"{key} changes {sorted(found)}, not {sorted(known)}")
    assert not wrong, "\n".join(wrong)
    assert count > 200


def test_each_pattern_of_the_table_is_needed(config):
    used = {next(p for p in READERS if fnmatch.fnmatch(key, p)) for key, _ in tried(config)}
    assert used == set(READERS)


INPUTS = {  # keys that name other files → the method of Names that follows them
    "pretrain.tokenizer": ("tokenizer", {}),
    "sft.mixture": ("sft_mixture", {}),
    "rl.steps.rlvr1.prompts": ("step_prompts", {"step": "rlvr1"}),
    "eval.tasks": ("scored_tasks", {}),
}


@pytest.mark.parametrize("key", INPUTS)
def test_a_key_that_names_a_file_changes_an_input(config, key):
    method, named = INPUTS[key]
    wildcards = SimpleNamespace(run=RUN, **named)
    names = Names(config)
    before = getattr(names, method)(wildcards)
    names.runs = {RUN: dict(tried(config))[f"run.{key}"].model}
    assert getattr(names, method)(wildcards) != before


def test_a_phase_reads_the_weights_and_not_the_name_of_its_blend(config_folder):
    other = Config(config_folder, overrides="pretrain.phases.phase2.blend=tiny-phase1")
    ours, theirs = digests(other), digests(Config(config_folder))
    assert ours["blend phase2"] == ours["blend phase1"] != theirs["blend phase2"]


def test_options_reach_the_stage_and_not_the_identity(config):
    spec = specs.of(config, "sft", {"run": RUN})
    assert spec.options.keys() == {"log_every", "save_every", "keep", "status_seconds", "spike"}
    assert specs.of(config, "render", JOBS["render"][1]).options == {"max_dropped": 0.01}


@pytest.mark.parametrize("stage", specs.VERSIONS)
def test_a_raised_version_changes_its_stage_alone(config, monkeypatch, pytestconfig, stage):
    imported = {"extends": RUN, "start": "sft", "init": {"import": "a/model"}}
    config = config.with_draft("imported", imported)
    jobs = {**JOBS, "import_model": ("import_model", {"run": "imported"})}
    jobs["image"] = ("image", {"image": "nemo"})
    monkeypatch.chdir(pytestconfig.rootpath)  # where envs/images.yaml is
    before = digests(config, jobs)
    monkeypatch.setitem(specs.VERSIONS, stage, specs.VERSIONS[stage] + 1)
    after = digests(config, jobs)
    changed = {job.split()[0] for job in before if before[job] != after[job]}
    assert changed == {stage}


def test_all_parts_of_a_corpus_have_one_spec(config):
    stage, named = JOBS["tokens"]
    made = {specs.of(config, stage, {**named, "part": f"{i:04d}"}).name for i in range(5)}
    assert len(made) == 1


def test_a_spec_is_named_by_run_stage_and_digest(config):
    assert specs.of(config, "sft", {"run": RUN}).name.startswith(f"{RUN}-sft-")
    assert specs.of(config, *JOBS["plan"]).name.startswith("plan-")


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("seed: 4\ncount: 300\nbuiltin: facts", True),
        ("builtin: facts\nseed: 4.0\ncount: 300", True),
        ("builtin: facts\nseed: 4\ncount: 300\nsplit: null", True),
        ("builtin: facts  # a comment\nseed: 4\ncount: 300\nlocal:", True),
        ("builtin: facts\nseed: 5\ncount: 300", False),
        ("builtin: facts\nseed: 4\ncount: 300\nsplit: train", False),
    ],
)
def test_order_comments_and_ways_to_write_a_number_change_no_digest(config, text, same):
    def digest(source):
        document = {"source": yaml12.parse(source, "x")[0], "parts": 1}
        changed = Changed(config, "corpora", KINDS["corpora"].model_validate(document))
        return specs.of(changed, *JOBS["plan"]).name

    assert (digest(text) == digest("builtin: facts\nseed: 4\ncount: 300")) is same


def test_an_optional_key_of_a_later_release_changes_no_digest(config):
    class Later(type(config.run(RUN).sft)):
        warm_restarts: int | None = None

    sft = Later(**plain(config.run(RUN).sft))
    later = Changed(config, "run", config.run(RUN).model_copy(update={"sft": sft}))
    assert digests(later) == digests(config)


def test_the_specs_of_every_run_of_ours_can_be_made(config):
    for name in config.run_names():
        for stage in graph.chain(config.run(name)):
            section, _, entry = stage.partition(".")
            named = {"pretrain": {"phase": entry}, "sft": {}, "rl": {"step": entry}}[section]
            made = specs.of(config, section, {"run": name, **named})
            assert json.loads(json.dumps(made.identity, allow_nan=False))["stage"] == section
