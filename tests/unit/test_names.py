"""What stands in the wildcards of a rule's inputs, over generations of runs."""

from types import SimpleNamespace

import pytest

from nemoflow.config import Config
from nemoflow.errors import UserError
from nemoflow.names import Names
from small_config import with_runs

AVERAGED = (
    "extends: micro\npretrain: {merge: {phase: phase2, windows: {last: 8}},"
    " phases: {phase2: {options: {window: {iterations: 12, every: 4}}}}}\n"
)


def wildcards(run, **more):
    return SimpleNamespace(run=run, **more)


@pytest.fixture
def family(config_folder):
    """Names of micro and its descendants."""
    return Names(
        with_runs(
            config_folder,
            child="extends: micro\nstart: sft\n",
            grandchild="extends: child\nstart: rl.rlvr2\nrl: {steps: {rlvr2: {kl: 0.1}}}\n",
            exported="extends: micro\nstart: eval\nexport: {dtype: bfloat16}\n",
            scored="extends: micro\nstart: eval\neval: {batch_size: 8}\n",
            shorter="extends: micro\nstart: eval\nrl: {steps: {rlvr2: null}}\n",
        )
    )


def test_data_products_follow_from_their_own_files(family):
    assert family.parts(SimpleNamespace(corpus="micro-facts")) == ["0000", "0001"]
    assert family.mixture_tokenizer(SimpleNamespace(mixture="micro")) == "micro"
    assert family.mixture_sources(SimpleNamespace(mixture="micro")) == ["chats", "more-chats"]
    assert family.tokenizer_of_packed(SimpleNamespace(mixture="micro")) == []
    assert family.task_prompts(SimpleNamespace(task="micro_facts")) == "micro-facts"
    assert family.task_prompts(SimpleNamespace(task="mmlu")) == []


def test_what_has_no_weight_is_not_trained_on(config_folder):
    blend = config_folder / "blends/micro-phase1.yaml"
    blend.write_text("weights: {micro-equations: 0, micro-facts: 0.4}\n")
    names = Names(Config(config_folder, overrides="mixtures.micro.sources.chats.weight=0"))
    phase1 = wildcards("micro", phase="phase1")
    assert names.blended_corpora(phase1) == ["micro-equations", "micro-facts"]  # tokenized
    assert names.trained_corpora(phase1) == ["micro-facts"]
    assert names.mixture_sources(SimpleNamespace(mixture="micro")) == ["more-chats"]


def test_an_imported_mixture_needs_its_tokenizer_alone(config_folder):
    there = "import: given\ntokenizer: tiny\npack_size: 64\n"
    (config_folder / "mixtures/taken.yaml").write_text(there)
    names, taken = Names(Config(config_folder)), SimpleNamespace(mixture="taken")
    assert names.mixture_sources(taken) == [] and names.tokenizer_of_packed(taken) == "tiny"


def test_a_stage_starts_from_the_run_that_owns_the_stage_before(family):
    assert family.phase_before(wildcards("micro", phase="phase1")) == []
    assert family.owner_of_phase_before(wildcards("micro", phase="phase1")) == "micro"
    assert family.phase_before(wildcards("micro", phase="phase2")) == "phase1"
    assert family.owner_of_last_phase(wildcards("grandchild")) == "micro"
    assert family.last_phase(wildcards("grandchild")) == "phase2"
    before = wildcards("grandchild", step="rlvr2")
    assert family.stage_before_step(before) == "rl.rlvr1"
    assert family.exporter_before_step(before) == "child"
    first = wildcards("child", step="rlvr1")
    assert (family.stage_before_step(first), family.exporter_before_step(first)) == ("sft", "child")


def test_an_export_reads_one_checkpoint(family):
    for stage, phase, sft, step in (
        ("pretrain", "phase2", [], []),
        ("pretrain.phase1", "phase1", [], []),
        ("sft", [], "sft", []),
        ("rl", [], [], "rlvr2"),
        ("rl.rlvr1", [], [], "rlvr1"),
    ):
        asked = wildcards("micro", stage=stage)
        found = (
            family.exported_phase(asked),
            family.exported_sft(asked),
            family.exported_step(asked),
        )
        assert found == (phase, sft, step)


def test_exports_and_scores_are_shared_with_the_owner(family):
    assert family.evaluated(wildcards("grandchild")) == ["pretrain", "sft", "rl"]
    assert family.exporters(wildcards("grandchild")) == ["micro", "child", "grandchild"]
    assert family.scorers(wildcards("grandchild")) == [
        *["micro", "micro", "child", "child", "grandchild", "grandchild"]
    ]
    assert family.scored_stages(wildcards("micro"))[:3] == ["pretrain", "pretrain", "sft"]
    assert family.scored_tasks(wildcards("micro")) == ["micro_arithmetic", "micro_facts"] * 3


def test_who_exports_otherwise_exports_and_scores_by_itself(family):
    assert family.exporters(wildcards("exported")) == ["exported"] * 3
    assert family.scorers(wildcards("exported")) == ["exported"] * 6
    assert family.owner_of_stage(wildcards("exported", stage="rl")) == "micro"


def test_who_scores_otherwise_scores_the_exports_of_the_owner(family):
    assert family.exporters(wildcards("scored")) == ["micro"] * 3
    assert family.scorers(wildcards("scored")) == ["scored"] * 6


def test_a_run_with_another_last_step_does_not_take_its_parents_for_it(family):
    # `rl` is rlvr1 here and rlvr2 in micro: results/micro/export/rl.json is another model
    assert family.exporters(wildcards("shorter")) == ["micro", "micro", "shorter"]
    asked = wildcards("shorter", stage="rl")
    assert family.exported_step(asked) == "rlvr1" and family.owner_of_stage(asked) == "micro"


def test_a_report_shows_every_stage_from_where_it_lies(family):
    assert family.own_phases(wildcards("grandchild")) == ["phase1", "phase2"]
    assert family.owners_of_phases(wildcards("grandchild")) == ["micro", "micro"]
    assert family.owner_of_sft(wildcards("grandchild")) == "child"
    assert family.own_steps(wildcards("grandchild")) == ["rlvr1", "rlvr2"]
    assert family.owners_of_steps(wildcards("grandchild")) == ["child", "grandchild"]


@pytest.fixture
def imported(config_folder):
    """Names of runs that begin with imported models, and of their children."""
    init, weights = "init: {import: m}\n", "pretrain: {phases: {phase1: {init: weights}}}\n"
    stages = "eval: {stages: [sft, rl]}\n"
    return Names(
        with_runs(
            config_folder,
            at_sft=f"extends: micro\nstart: sft\n{init}",
            at_rl=f"extends: micro\nstart: rl\n{init}{stages}",
            at_phase2=f"extends: micro\nstart: pretrain.phase2\n{init}",
            at_first=f"extends: micro\nstart: pretrain\n{init}{weights}",
            at_end=f"extends: micro\nstart: eval\n{init}eval: {{stages: [rl]}}\n",
            child="extends: at-sft\nstart: rl\n",
        )
    )


def test_the_first_stage_starts_from_the_imported_model(imported):
    asked = wildcards("at-sft")
    assert imported.last_phase(asked) == [] and imported.importer_before_sft(asked) == "at-sft"
    asked = wildcards("at-phase2", phase="phase2")
    assert imported.phase_before(asked) == [] == imported.imported(asked, "sft")
    assert imported.importer_before_phase(asked) == "at-phase2"
    asked = wildcards("at-first", phase="phase1")
    assert imported.importer_before_phase(asked) == "at-first"
    asked = wildcards("at-first", phase="phase2")
    assert imported.phase_before(asked) == "phase1" and imported.importer_before_phase(asked) == []
    asked = wildcards("at-rl", step="rlvr1")
    assert imported.stage_before_step(asked) == "sft"
    assert imported.exporter_before_step(asked) == "at-rl"
    for run in ("at-sft", "child"):
        assert imported.importer_before_phase(wildcards("micro", phase="phase1")) == []
        export = wildcards(run, stage="pretrain")
        assert (
            imported.exported_phase(export) == [] and imported.importer_of_stage(export) == "at-sft"
        )
        assert imported.importer_of_stage(wildcards(run, stage="sft")) == []
        assert imported.exporters(wildcards(run))[0] == "at-sft"


def test_a_report_shows_the_imported_model_and_what_follows(imported):
    assert imported.own_phases(wildcards("child")) == []
    assert (
        imported.owner_of_sft(wildcards("child"))
        == "at-sft"
        == imported.importer(wildcards("child"))
    )
    assert imported.owners_of_steps(wildcards("child")) == ["child", "child"]
    alone = wildcards("at-rl")
    assert imported.owner_of_sft(alone) == imported.sft_mixture(alone) == []
    assert imported.own_stages(alone) == ["rl.rlvr1", "rl.rlvr2"]
    assert imported.importer(wildcards("micro")) == []


@pytest.mark.parametrize(
    ("method", "run", "asked"),
    [
        ("blended_corpora", "at-sft", {"phase": "phase2"}),
        ("owner_of_last_phase", "at-rl", {}),
        ("stage_before_step", "at-end", {"step": "rlvr1"}),
        ("owner_of_stage", "at-sft", {"stage": "pretrain.phase1"}),
        ("exporter_of_stage", "child", {"stage": "pretrain.phase1"}),
    ],
)
def test_what_an_imported_model_replaces_is_no_target(imported, method, run, asked):
    with pytest.raises(UserError, match=f"there is no .* in {run}: it begins with the imported"):
        getattr(imported, method)(wildcards(run, **asked))


def test_a_branch_is_exported_from_its_own_checkpoint(family):
    asked = wildcards("nano3", stage="rl.dpo")
    assert family.exported_step(asked) == "dpo"
    before = wildcards("nano3", step="dpo")
    assert family.stage_before_step(before) == "rl"  # rlhf, the last of the chain


def test_an_average_is_its_phases_owners_unless_the_run_averages_otherwise(config_folder):
    names = Names(
        with_runs(
            config_folder,
            averaged=AVERAGED,
            child="extends: averaged\nstart: sft\n",
            longer="extends: averaged\nstart: sft\npretrain: {merge: {windows: {last: 12}}}\n",
        )
    )
    for run, holder in (("averaged", "averaged"), ("child", "averaged"), ("longer", "longer")):
        merged = wildcards(run, stage="merged")
        assert names.merger_of_stage(merged) == holder
        assert names.exporter(merged, "merged") == holder
        assert (names.merged_phase(merged), names.exported_window(merged)) == ("phase2", "last")
        assert names.exported_phase(merged) == names.exported_sft(merged) == []
        job = wildcards(run, phase="phase2", window="last")
        assert names.owner_of_merged_phase(job) == "averaged"
        assert names.validated_phase(job) == "phase2"
    with pytest.raises(UserError, match="averages no window other of phase2"):
        names.owner_of_merged_phase(wildcards("child", phase="phase2", window="other"))


def test_a_phase_may_go_on_from_an_average(config):
    names = Names(config)
    job = wildcards("super3", phase="long_context_1m")
    assert names.phase_before(job) == []
    assert (names.merged_before(job), names.window_before(job)) == ("phase2", "500b")
    assert names.merger_before_phase(job) == "super3"
    later = wildcards("super3", phase="long_context_mixed")
    assert names.phase_before(later) == "long_context_1m" and names.merged_before(later) == []


def test_adapters_are_exported_with_the_model_that_they_belong_to(config_folder):
    text = "extends: micro\nstart: sft\nsft: {lora: {rank: 2}}\n"
    names = Names(with_runs(config_folder, adapted=text))
    sft, rl = wildcards("adapted", stage="sft"), wildcards("adapted", stage="rl")
    assert (names.adapted_phase(sft), names.owner_of_adapted(sft)) == ("phase2", "micro")
    assert names.adapted_phase(rl) == names.importer_of_adapted(rl) == []
    assert names.adapted_phase(wildcards("micro", stage="sft")) == []
