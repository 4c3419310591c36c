"""Profiles: read, checked, and evaluated for one job."""

# ruff: noqa: E501  (a table reads better whole)

from pathlib import Path

import pytest

from nemoflow import profile
from nemoflow.errors import UserError
from nemoflow.machine import Machine
from nemoflow.profile import Profile

ROOT = Path(__file__).parents[2]
RULES = profile.rules(ROOT / "rules")


@pytest.fixture
def made(tmp_path):
    """A profile with the given text."""

    def make(text):
        (tmp_path / "config.yaml").write_text(text)
        return Profile(tmp_path)

    return make


def test_rules_are_read_from_their_files():
    assert {"pretrain", "sft", "rl", "export", "eval_task", "seal", "publish"} <= set(RULES)


@pytest.mark.parametrize("name", ["b200", "h100", "local"])
def test_the_profiles_of_the_repository_are_sound(config, name):
    found = Profile(ROOT / "profiles" / name)
    assert list(found.problems(RULES)) == []
    assert list(found.miscounted(config)) == []


def test_h100_repeats_nothing_but_its_gpus():
    b200, h100 = (Profile(ROOT / "profiles" / name) for name in ("b200", "h100"))
    assert h100.path.is_symlink() and h100.values == b200.values
    assert "nvfp4" in b200.hardware.peak_tflops and "nvfp4" not in h100.hardware.peak_tflops


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("set-resources: {pretrian: {nodes: 4}}", "set-resources.pretrian: there is no rule pretrian; did you mean pretrain?"),
        ("set-threads: {stf: 4}", "set-threads.stf: there is no rule stf; did you mean sft?"),
        ("set-resources: {rl: {genrate_nodes: 4}}", "there is no resource genrate_nodes; did you mean generate_nodes?"),
        ('set-resources:\n  sft:\n    nodes: "2"', "config.yaml:3: set-resources.sft.nodes: '2' is text; write the number without quotes"),
        ("set-resources: {sft: {nodes: \"'4'\"}}", "is text; write the number without quotes"),
        ("set-resources: {sft: {nodes: \"'4' if wildcards.run == 'a' else 8\"}}", "'4' is text"),
        ('set-resources: {sft: {runtime: "90"}}', "set-resources.sft.runtime: '90' is text"),
        ('set-threads: {sft: "4"}', "set-threads.sft: '4' is text"),
        ('default-resources: {mem_mb: "64000"}', "default-resources.mem_mb: '64000' is text"),
        ('retries: "2"', "retries: '2' is text"),
        ("set-resources: {sft: {nodes: many}}", "must be a number, or an expression that gives one, not 'many'"),
        ("set-resources: {sft: {gres: 8}}", "set-resources.sft.gres: must be text, not the number 8"),
        ("set-resources: {sft: {nodes: [2]}}", "must be a number, text, or an expression, not [2]"),
        ('set-resources: {sft: {nodes: "4 if wildcards.phase else 2"}}', "there is no wildcards.phase; known here: wildcards.run"),
        ('set-resources: {sft: {nodes: "4 if wildcards.run"}}', "is no Python expression"),
        ('set-resources: {sft: {nodes: "4 if wildcards.run == nano3 else 2"}}', "there is no nano3; known here"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(made, text, said):
    (told,) = made(text).problems(RULES)
    assert said in told and "config.yaml:" in told


@pytest.mark.parametrize(
    "given",
    [
        "nodes: \"2 if wildcards.run == 'a' else 4\"",
        "nodes: 2",
        'gres: "gpu:8"',
        "mpi: srun",
        'slurm_extra: "--exclusive --signal=TERM@600"',
        "runtime: 4h",
        'mem_mb: "64000 * attempt"',
    ],
)
def test_what_snakemake_takes_is_no_mistake(made, given):
    assert list(made(f"set-resources:\n  sft:\n    {given}\n").problems(RULES)) == []


def test_a_profile_may_limit_resources_of_its_own(made):
    text = "resources: {licences: 4}\nset-resources: {sft: {licences: 1}}"
    assert list(made(text).problems(RULES)) == []


def test_a_rule_has_the_defaults_of_its_profile_and_its_own(made):
    found = made(
        "default-resources: {nodes: 1, runtime: 5}\nset-threads: {pretrain: 12}\nset-resources:\n"
        "  pretrain:\n    nodes: \"4 if wildcards.phase == 'long' else 2\"\n"
    )
    for phase, nodes in (("long", 4), ("phase1", 2)):
        given = found.resources("pretrain", {"run": "x", "phase": phase})
        assert given == {"nodes": nodes, "runtime": 5, "threads": 12}
    assert found.resources("sft", {"run": "x"}) == {"nodes": 1, "runtime": 5, "threads": 1}


@pytest.mark.parametrize(
    ("given", "machine"),
    [
        ("nodes: 4\n    gres: gpu:8", Machine(4, 8)),
        ("nodes: 2\n    gres: gpu:h100:4", Machine(2, 4)),
        ("gpu: 2", Machine(1, 2)),
        ("nodes: 4", Machine(4, 0)),
        (
            "nodes: 109\n    gres: gpu:8\n    generate_nodes: 72\n    environment_nodes: 5",
            Machine(109, 8, 1, 72, 5),
        ),
    ],
)
def test_the_machine_of_a_job_is_what_its_resources_say(made, given, machine):
    found = made(f"set-resources:\n  rl:\n    {given}\n")
    assert found.machine("rl", {"run": "x", "step": "y"}) == machine


def test_rlvr_is_32_nodes_that_train_72_that_generate_and_5_with_judges():
    machine = Profile(ROOT / "profiles/b200").machine("rl", {"run": "super3", "step": "rlvr2"})
    assert (machine.nodes, machine.train_nodes) == (109, 32)
    assert (machine.generate_nodes, machine.environment_nodes) == (72, 5)


def test_nodes_that_do_not_add_up_name_run_and_step(made, config):
    found = made("set-resources: {rl: {nodes: 8, generate_nodes: 6, environment_nodes: 2}}")
    told = "\n".join(found.miscounted(config))
    assert "set-resources.rl: nodes=8: 6 generate and 2 serve environments" in told
    assert "(super3, rl.swe1)" in told and "correct nodes, generate_nodes" in told


def test_an_expression_that_fails_for_a_job_says_what_it_could_use(made):
    found = made('set-resources: {sft: {nodes: "2 + wildcards.run"}}')
    with pytest.raises(UserError, match="set-resources.sft.nodes: .* known here: wildcards.run"):
        found.resources("sft", {"run": "x"})


def test_a_missing_profile_is_named(tmp_path):
    with pytest.raises(UserError, match="no config.yaml there; profiles: "):
        Profile(tmp_path / "x")


def test_a_wrong_machine_yaml_is_told_as_any_config(made, tmp_path):
    found = made("executor: slurm")
    assert found.hardware is None and found.is_remote
    (tmp_path / "machine.yaml").write_text("gpu: b200\nmemory: 180\n")
    with pytest.raises(UserError, match=r"machine.yaml:2: memory is not a setting; did you mean"):
        _ = found.hardware
