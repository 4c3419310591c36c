"""What a dry run says becomes jobs, and changed specs become keys of the config."""

import pytest

from nemoflow import files, manifest, planning, provenance, specs
from nemoflow.config import Config
from nemoflow.config.messages import validated
from nemoflow.config.run import Run
from nemoflow.errors import UserError
from nemoflow.planning import Job

TEXT = """
    input: results/a.json, results/b.json
    output: results/x/sft/checkpoint.json, results/x/sft/curve.csv
    log: results/x/logs/sft.log
    jobid: 3
    reason: Params have changed since last execution: before: 'a'; Input files updated by another job: results/a.json
    wildcards: run=x
    threads: 2
"""  # noqa: E501


def test_a_job_is_read_from_what_snakemake_prints():
    job = planning.parsed("sft", TEXT)
    assert job.outputs == ["results/x/sft/checkpoint.json", "results/x/sft/curve.csv"]
    assert job.wildcards == {"run": "x"} and job.reason.startswith("Params have changed")
    part = planning.parsed(
        "tokens", "\n    output: a/0001.json (temp)\n    wildcards: part=1, c=d\n"
    )
    assert part == Job("tokens", ["a/0001.json"], "", {"part": "1", "c": "d"})


# override of the config → job → the key that `plan` names, with both values
CHANGES = [
    ("pretrain.schedule.peak=5e-3", "pretrain", {"run": "micro", "phase": "phase1"},
     "pretrain.phases.phase1.schedule.peak: 0.003 → 0.005"),
    ("pretrain.optimizer.clip=2.0", "pretrain", {"run": "micro", "phase": "phase1"},
     "pretrain.optimizer.clip: 1.0 → 2.0"),
    ("pretrain.model.moe.scaling=3.0", "sft", {"run": "micro"},
     "pretrain.model.moe.scaling: 2.5 → 3.0"),
    ("pretrain.model.moe.scaling=3.0", "rl", {"run": "micro", "step": "rlvr1"},
     "pretrain.model.moe.scaling: 2.5 → 3.0"),
    ("sft.iterations=13", "sft", {"run": "micro"}, "sft.iterations: 12 → 13"),
    ("rl.kl=0.5", "rl", {"run": "micro", "step": "rlvr1"}, "rl.steps.rlvr1.kl: 0.0 → 0.5"),
    ("rl.precision=bf16", "rl", {"run": "micro", "step": "rlvr1"}, "rl.precision: fp32 → bf16"),
    ("export.dtype=bfloat16", "export", {"run": "micro", "stage": "rl"},
     "export.dtype: float32 → bfloat16"),
    ("sft.engine=megatron", "export", {"run": "micro", "stage": "sft"},
     "sft.engine: local → megatron"),
    ("rl.engine=nemo_rl", "export", {"run": "micro", "stage": "rl.rlvr1"},
     "rl.engine: local → nemo_rl"),
    ("eval.batch_size=8", "eval_task", {"run": "micro", "stage": "rl", "task": "micro_facts"},
     "eval.batch_size: 64 → 8"),
    ("tasks.micro_facts.fewshot=1", "eval_task",
     {"run": "micro", "stage": "rl", "task": "micro_facts"}, "tasks.micro_facts.fewshot: 0 → 1"),
    ("eval.stages=[rl]", "eval", {"run": "micro"},
     "eval.stages: ['pretrain', 'sft', 'rl'] → ['rl']"),
    ("tokenizers.micro.dtype=uint16", "tokens",
     {"tokenizer": "micro", "corpus": "micro-facts", "part": "0000"},
     "tokenizers.micro.dtype: int32 → uint16"),
    ("tokenizers.micro.vocab_size=319", "tokenizer", {"tokenizer": "micro"},
     "tokenizers.micro.vocab_size: 320 → 319"),
    ("corpora.micro-facts.parts=3", "plan", {"corpus": "micro-facts"},
     "corpora.micro-facts.parts: 2 → 3"),
    ("corpora.micro-facts.max_doc_tokens=9", "corpus",
     {"tokenizer": "micro", "corpus": "micro-facts"},
     "corpora.micro-facts.max_doc_tokens: unset → 9"),
    ("blends.micro-phase2.weights.micro-facts=null", "blend", {"run": "micro", "phase": "phase2"},
     "blends.micro-phase2.weights.micro-facts: 0.4 → unset"),
    ("mixtures.micro.template=nemotron3", "render", {"mixture": "micro", "source": "chats"},
     "mixtures.micro.template: "),
    ("mixtures.micro.sources.chats.source.count=9", "render",
     {"mixture": "micro", "source": "chats"}, "mixtures.micro.sources.chats.source.count: 300 → 9"),
    ("mixtures.micro.sources.chats.weight=2", "pack", {"mixture": "micro"},
     "mixtures.micro.sources.chats.weight: 1.0 → 2.0"),
    ("prompts.micro-facts.seed=1", "resolve", {"prompts": "micro-facts"},
     "prompts.micro-facts.seed: 42 → 1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("override", "rule", "named", "said"), CHANGES, ids=[f"{c[0]}-{c[1]}" for c in CHANGES]
)
def test_a_changed_key_has_the_name_that_the_config_gives_it(
    config, config_folder, override, rule, named, said
):
    class Unchecked(Config):
        def run(self, name):
            return validated(Run, self.layered("runs", name), name)

    changed = Unchecked(config_folder, overrides=override)
    before = {"identity": specs.of(config, rule, named).identity}
    (line,) = planning.changes(Job(rule, ["x"], "", named), changed, before)
    assert line.startswith(said)


def test_a_raised_version_is_a_change_of_the_stage(config, monkeypatch):
    before = {"identity": specs.of(config, "sft", {"run": "micro"}).identity}
    monkeypatch.setitem(specs.VERSIONS, "sft", 99)
    job = Job("sft", ["x"], "", {"run": "micro"})
    assert planning.changes(job, config, before)[0].startswith("version of stage sft: ")
    assert planning.changes(job, config, before)[0].endswith(" → 99")


def test_the_reasons_of_a_job_are_its_own(config):
    named = {"run": "micro"}
    same = {"identity": specs.of(config, "sft", named).identity}
    follows = f"{planning.FOLLOWS}: results/a.json"
    for reason, before, why in (
        ("Missing output files: x", {}, ["not built yet"]),
        (follows, {}, []),
        (follows, same, []),
        (f"Updated input files: y; {follows}", same, ["changed input: y"]),
        ("Forced execution", same, ["Forced execution"]),
    ):
        assert planning.why(Job("sft", ["x"], reason, named), config, before) == why


def test_a_former_build_is_known_from_its_manifest_or_its_copy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Job("sft", ["results/x.json"], "", {})
    assert planning.former(job) == {}
    manifest.write("results/x.json", {"seed": 1})
    assert planning.former(job)["identity"] == {"seed": 1}
    assert planning.replaced(planning.former(job)) == "replaces results/x.json"
    manifest.keep(["results/x.json"])
    (tmp_path / "results/x.json").unlink()
    assert planning.former(job)["identity"] == {"seed": 1}
    built = {"started": "2030-01-02T03:04:05Z", "host": "h", "seconds": 61.4}
    files.write_json(provenance.BUILDS / "results/x.json.json", {"built": built})
    told = planning.replaced(planning.former(job))
    assert told == "replaces the one built 2030-01-02 03:04 on h, which took 61 s"


def test_a_dry_run_that_fails_says_what_snakemake_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="profiles/none"):
        planning.dry_run(["results/x.json"], "profiles/none", None)


def plan(config, monkeypatch, *jobs):
    monkeypatch.setattr(planning, "dry_run", lambda *arguments: list(jobs))
    return list(planning.plan(config, ["x"], "profiles/local", None))


def test_a_plan_is_told_causes_first(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert plan(config, monkeypatch) == [
        "nothing to do: everything is built, from just this config"
    ]
    identity = specs.of(config, "sft", {"run": "micro"}).identity
    manifest.write("results/micro/eval.json", {})
    manifest.write("results/micro/sft/checkpoint.json", {**identity, "iterations": 99})
    after = Job("eval", ["results/micro/eval.json"], f"{planning.FOLLOWS}: y", {"run": "micro"})
    changed = Job("sft", ["results/micro/sft/checkpoint.json"], "Params", {"run": "micro"})
    fresh = Job("rl", ["results/micro/rl/rlvr1/checkpoint.json"], "Missing output files: z",
                {"run": "micro", "step": "rlvr1"})  # fmt: skip
    manifest.write("results/micro/eval.json", specs.of(config, "eval", {"run": "micro"}).identity)
    assert plan(config, monkeypatch, after, changed, fresh) == [
        "sft  results/micro/sft/checkpoint.json",
        "    because sft.iterations: 99 → 12",
        "    replaces results/micro/sft/checkpoint.json",
        "eval  results/micro/eval.json",
        "    because its inputs are rebuilt; replaces results/micro/eval.json",
        "not built yet: 1 rl",
        "3 jobs",
    ]


def test_the_plan_says_what_scores_will_be_held_against(config):
    job = Job("eval", ["results/super3/eval.json"], "", {"run": "super3"})
    lines = list(planning.published(config, job))
    assert lines[0] == "results/super3/eval.json will be held against published scores"
    assert lines[1] == "    pretrain mmlu: 0.8589 ± (0.01 + 2 std. errors)" and len(lines) == 6
    job = Job("eval", ["results/micro/eval.json"], "", {"run": "micro"})
    assert list(planning.published(config, job)) == []
