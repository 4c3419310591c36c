"""Changed key → exactly the jobs that depend on it, and the words that `plan` finds for it."""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import pytest

from workflow.checkout import TARGET, Checkout

EVALUATED = Counter(export=3, eval_task=6, eval=1)
AFTER_SFT = Counter(rl=2, export=3, eval_task=4, eval=1)
AFTER_PRETRAIN = Counter(sft=1, rl=2, export=4, eval_task=6, eval=1)
NOTHING = Counter()
MICRO, TINY = "config/micro.yaml", "config/super3-tiny.yaml"
SFT, RL = "schedule: {warmup_iterations: 2, end_iteration: 12}", "schedule: {end_iteration: 6}"

# what changes: file, text before, text after → jobs, and what `plan` says
CHANGES = {
    "blend weight": (
        "config/blends/micro-phase1.yaml", "micro-facts: 0.4", "micro-facts: 0.3",
        Counter(blend=1, pretrain=2) + AFTER_PRETRAIN,
        "blends.micro-phase1.weights.micro-facts: 0.4 → 0.3",
    ),
    "blend weight of the last phase": (
        "config/blends/micro-phase2.yaml", "micro-equations: 0.6", "micro-equations: 0.5",
        Counter(blend=1, pretrain=1) + AFTER_PRETRAIN,
        "blends.micro-phase2.weights.micro-equations: 0.6 → 0.5",
    ),
    "a corpus more": (
        "config/blends/micro-phase1.yaml", "micro-facts: 0.4", "micro-facts: 0.4, tiny-facts: 1",
        Counter(plan=1, tokens=2, corpus=1, blend=1, pretrain=2) + AFTER_PRETRAIN,
        "blends.micro-phase1.weights.tiny-facts: unset → 1",
    ),
    "a corpus more in the last phase": (
        "config/blends/micro-phase2.yaml", "micro-facts: 0.4", "tiny-facts: 1",
        Counter(plan=1, tokens=2, corpus=1, blend=1, pretrain=1) + AFTER_PRETRAIN,
        "blends.micro-phase2.weights.tiny-facts: unset → 1",
    ),
    "a sample": (
        MICRO, "pretrain:\n", "pretrain:\n  sample: 9\n",
        Counter(plan=2, tokens=2, corpus=2, blend=2, pretrain=2) + AFTER_PRETRAIN,
        "micro-facts-sample9: unset → 0.4",
    ),
    "mixture weight": (
        "config/mixtures/micro.yaml", "weight: 0.5", "weight: 0.6",
        Counter(pack=1, sft=1) + AFTER_SFT,
        "mixtures.micro.sources.more-chats.weight: 0.5 → 0.6",
    ),
    "weights of tokens": (
        "config/mixtures/micro.yaml", "valid_fraction", "weigh_by: tokens\nvalid_fraction",
        Counter(pack=1, sft=1) + AFTER_SFT,
        "mixtures.micro.weigh_by: rows → tokens",
    ),
    "a filter of a source": (
        "config/mixtures/micro.yaml", "weight: 0.5", "weight: 0.5, filters: {kind: {not_in: [z]}}",
        Counter(render=1, pack=1, sft=1) + AFTER_SFT,
        "mixtures.micro.sources.more-chats.filters.kind: unset → ",
    ),
    "mixture seed": (
        "config/mixtures/micro.yaml", "valid_fraction: 0.05", "valid_fraction: 0.05\nseed: 7",
        Counter(pack=1, sft=1) + AFTER_SFT,
        "mixtures.micro.seed: 42 → 7",
    ),
    "conversations": (
        "config/mixtures/micro.yaml", "seed: 3, count: 100", "seed: 3, count: 101",
        Counter(render=1, pack=1, sft=1) + AFTER_SFT,
        "mixtures.micro.sources.more-chats.source.count: 100 → 101",
    ),
    "chat template": (
        "config/templates/chatml.jinja", "add_generation_prompt", "add_generation_prompt ",
        Counter(tokenizer=1, tokens=4, corpus=2, blend=2, pretrain=2, render=2, pack=1)
        + AFTER_PRETRAIN,
        "tokenizers.micro.train.template: ",
    ),
    "corpus source": (
        "config/corpora/micro-facts.yaml", "count: 200", "count: 210",
        Counter(plan=1, tokens=2, corpus=1, blend=2, pretrain=2) + AFTER_PRETRAIN,
        "corpora.micro-facts.source.count: 200 → 210",
    ),
    "corpus parts": (
        "config/corpora/micro-facts.yaml", "parts: 2", "parts: 3",
        Counter(plan=1, tokens=3, corpus=1, blend=2, pretrain=2) + AFTER_PRETRAIN,
        "corpora.micro-facts.parts: 2 → 3",
    ),
    "corpus filter": (
        "config/corpora/micro-facts.yaml", "parts: 2", "parts: 2\nmin_doc_chars: 5",
        Counter(tokens=2, corpus=1, blend=2, pretrain=2) + AFTER_PRETRAIN,
        "corpora.micro-facts.min_doc_chars: 0 → 5",
    ),
    "pretraining learning rate": (
        MICRO, "decay_iterations: 12,", "decay_iterations: 12, peak: 2e-3,",
        Counter(pretrain=2) + AFTER_PRETRAIN,
        "pretrain.phases.phase1.schedule.peak: 0.003 → 0.002",
    ),
    "one phase": (
        MICRO, "phase2: {blend: micro-phase2,", "phase2: {blend: micro-phase2, seed: 9,",
        Counter(pretrain=1) + AFTER_PRETRAIN,
        "pretrain.phases.phase2.seed: 0 → 9",
    ),
    "architecture": (
        MICRO, "shared_ffn: 32", "shared_ffn: 48",
        Counter(pretrain=2) + AFTER_PRETRAIN,
        "pretrain.model.moe.shared_ffn: 32 → 48",
    ),
    "run seed": (
        MICRO, "extends: super3-tiny", "extends: super3-tiny\nseed: 5",
        Counter(pretrain=2) + AFTER_PRETRAIN,
        "sft.seed: 0 → 5",
    ),
    "SFT learning rate": (
        MICRO, SFT, SFT.replace("{", "{peak: 5e-4, "),
        Counter(sft=1) + AFTER_SFT,
        "sft.schedule.peak: 0.001 → 0.0005",
    ),
    "RL prompt count of a step": (
        MICRO, "rlvr2: {prompts: micro-problems,",
        "rlvr2: {prompts: micro-problems, prompts_per_step: 8,",
        Counter(rl=1, export=1, eval_task=2, eval=1),
        "rl.steps.rlvr2.prompts_per_step: 4 → 8",
    ),
    "RL learning rate": (
        MICRO, RL, RL.replace("{", "{peak: 3e-5, "),
        Counter(rl=2, export=2, eval_task=2, eval=1),
        "rl.steps.rlvr1.schedule.peak: 0.0002 → 3e-05",
    ),
    "RL rows": (
        "config/prompts/micro-problems.yaml", "seed: 3, count: 60", "seed: 3, count: 64",
        Counter(resolve=1, rl=2, export=2, eval_task=4, eval=1),
        "prompts.micro-problems.sources: ",
    ),
    "evaluation items": (
        "config/prompts/micro-facts.yaml", "count: 12", "count: 13",
        Counter(resolve=1, eval_task=3, eval=1),
        "prompts.micro-facts.validation: ",
    ),
    "evaluation task": (
        "config/tasks/micro_facts.yaml", "metric: acc,none", "metric: acc_norm,none",
        Counter(eval_task=3, eval=1),
        "tasks.micro_facts.metric: acc,none → acc_norm,none",
    ),
    "evaluated stages": (
        MICRO, "eval:\n", "eval:\n  stages: [sft, rl]\n", Counter(eval=1), "eval.stages: ",
    ),
    "published score": (
        MICRO, "eval:\n",
        "eval:\n  published: {rl: {micro_facts: {value: 1.0, tolerance: 0.1}}}\n",
        Counter(eval=1),
        "eval.published.rl: unset → ",
    ),
    "export type": (
        MICRO, "eval:\n", "export: {dtype: bfloat16}\neval:\n",
        Counter(rl=2, export=4, eval_task=6, eval=1),
        "export.dtype: float32 → bfloat16",
    ),
    "version of a stage": (
        "workflow/nemoflow/specs.py", '"sft": 1', '"sft": 2',
        Counter(sft=1) + AFTER_SFT,
        "version of stage sft: 1 → 2",
    ),
    "version of a data stage": (
        "workflow/nemoflow/specs.py", '"resolve": 4', '"resolve": 5',
        Counter(resolve=2, rl=2, export=2, eval_task=6, eval=1),
        "version of stage resolve: 4 → 5",
    ),
    # what rebuilds nothing
    "log interval": (MICRO, "log_every: 2", "log_every: 3", NOTHING, "nothing to do"),
    "save interval": (MICRO, "save_every: 3", "save_every: 6", NOTHING, "nothing to do"),
    "spike bound": (MICRO, "sft:\n", "sft:\n  spike: 9.0\n", NOTHING, "nothing to do"),
    "allowed drops": (
        "config/corpora/micro-facts.yaml", "parts: 2", "parts: 2\nmax_dropped: 0.5",
        NOTHING, "nothing to do",
    ),
    "comment": (MICRO, "sft:\n", "# a comment\nsft:  # another\n", NOTHING, "nothing to do"),
    "key order": (
        MICRO, "{blend: micro-phase1, stop_iteration: 24}",
        "{stop_iteration: 24, blend: micro-phase1}",
        NOTHING, "nothing to do",
    ),
    "4 written as 4.0": (
        MICRO, "prompts_per_step: 4", "prompts_per_step: 4.0", NOTHING, "nothing to do",
    ),
    "1 written for 1.0": (
        "config/mixtures/micro.yaml", "weight: 1.0", "weight: 1", NOTHING, "nothing to do",
    ),
    "text of a shell line": (
        "rules/sft.smk", 'sft.py --spec {params.spec:q}"', 'sft.py  --spec {params.spec:q}"',
        NOTHING, "nothing to do",
    ),
    "code without a version": (
        "workflow/nemoflow/model_stages.py", '"""Fine-tune the last', '"""Tune the last',
        NOTHING, "nothing to do",
    ),
    "another run's file": (
        "config/nano3.yaml", "extends", "extends", NOTHING, "nothing to do",
    ),
    "an unused corpus": (
        "config/corpora/tiny-facts.yaml", "parts: 2", "parts: 5", NOTHING, "nothing to do",
    ),
}  # fmt: skip


# Each has a twin above that asks the same of another key: for `make test-long`.
LONG = {
    *("blend weight of the last phase", "a corpus more in the last phase", "mixture seed"),
    *("weights of tokens", "RL learning rate", "evaluated stages", "version of a stage"),
    *("save interval", "spike bound", "1 written for 1.0", "an unused corpus"),
}
NAMES = [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in CHANGES]


@pytest.fixture(scope="module")
def words(request, built, tmp_path_factory):
    """What `plan` says after each change, two at a time, each in a copy of its own."""
    callspecs = [getattr(item, "callspec", None) for item in request.session.items]
    asked = {spec.params["name"] for spec in callspecs if spec and "name" in spec.params}
    names = [name for name in CHANGES if name in asked]
    copies = Queue()
    for number in range(2):
        copies.put(built.copy(tmp_path_factory.mktemp("rerun") / f"checkout{number}"))
    with ThreadPoolExecutor(2) as pool:
        told = pool.map(lambda name: planned_words(copies, name), names)
        return dict(zip(names, told, strict=True))


def planned_words(copies, name):
    """What `plan` says after one change, which is taken back."""
    checkout, (path, before, after, *_) = copies.get(), CHANGES[name]
    original = (checkout.folder / path).read_text()
    try:
        if before == after:  # another run's file may even be broken
            (checkout.folder / path).write_text("no: [yaml")
        else:
            checkout.edit(path, before, after)
        return checkout.nemoflow("plan", TARGET)
    finally:
        (checkout.folder / path).write_text(original)
        copies.put(checkout)


@pytest.mark.parametrize("name", NAMES)
def test_a_change_reruns_exactly_what_depends_on_it(words, name):
    *_, jobs, said = CHANGES[name]
    told = words[name]
    assert said in told
    assert Counter(re.findall(r"^(\w+)  results/", told, flags=re.M)) + unbuilt(told) == jobs
    if jobs and "not built yet" not in told:
        assert told.count("replaces") == jobs.total()


def unbuilt(words):
    """Jobs whose product does not exist yet (more parts)."""
    line = re.search(r"^not built yet: (.*)$", words, flags=re.M)
    pairs = re.findall(r"(\d+) (\w+)", line[1]) if line else []
    return Counter({rule: int(count) for count, rule in pairs})


def test_a_moved_repository_builds_nothing(copy, tmp_path):
    moved = Checkout(copy.folder.rename(tmp_path / "elsewhere"))
    assert moved.planned() == NOTHING
    weight = "blends.micro-phase2.weights.micro-facts=0"
    assert moved.planned(overrides=weight) == Counter(blend=1, pretrain=1) + AFTER_PRETRAIN


def test_an_override_plans_as_the_file_would(built):
    checkout = built
    assert checkout.planned(overrides="sft.schedule.peak=5e-4") == Counter(sft=1) + AFTER_SFT
    assert checkout.planned(overrides="sft.schedule.peak=1e-3") == NOTHING
    weight = "blends.micro-phase2.weights.micro-facts=0.9"
    assert checkout.planned(overrides=weight)["tokens"] == 0
