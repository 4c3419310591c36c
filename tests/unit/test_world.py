"""Whether parallel sizes fit the GPUs that a profile gives."""

from pathlib import Path

import pytest

from nemoflow import world
from nemoflow.errors import UserError
from small_config import with_runs

PROFILES = Path(__file__).parents[2] / "profiles"


@pytest.fixture
def profile(tmp_path):
    """A profile `b200` that gives every stage the same."""

    def make(**resources):
        text = "".join(f"    {key}: {value}\n" for key, value in resources.items())
        rules = "".join(f"  {rule}:\n{text}" for rule in ("pretrain", "sft", "rl"))
        (tmp_path / "b200").mkdir(exist_ok=True)
        (tmp_path / "b200/config.yaml").write_text(f"set-resources:\n{rules}")
        return tmp_path / "b200"

    return make


def checked(config, name, profile):
    return list(world.check(config, name, config.run(name), profile))


@pytest.mark.parametrize("profile", ["b200", "h100"])
@pytest.mark.parametrize("name", ["super3", "nano3"])
def test_the_recipes_fit_the_profiles_but_for_precision(config, name, profile):
    if (name, profile) == ("super3", "h100"):
        with pytest.raises(UserError, match="h100 GPUs have no nvfp4; set pretrain.precision"):
            checked(config, name, PROFILES / profile)
    else:
        lines = checked(config, name, PROFILES / profile)
        assert lines[0].startswith("pretrain.phase1: ") and "data-parallel" in lines[0]


def test_a_run_of_the_local_engine_needs_no_gpus(config):
    assert checked(config, "micro", PROFILES / "local") == []


@pytest.mark.parametrize(
    ("given", "gpus"),
    [
        ({"nodes": 4, "gres": "gpu:8"}, 32),
        ({"nodes": 2, "gres": "gpu:h100:4"}, 8),
        ({"gres": "gpu:8"}, 8),
        ({"nodes": 4}, 0),
        ({"nodes": 109, "gres": "gpu:8", "generate_nodes": 72, "environment_nodes": 5}, 256),
    ],
)
def test_gpus_that_train_are_those_of_the_nodes_not_set_aside(given, gpus):
    assert world.gpus(given) == gpus


def test_a_rule_has_the_defaults_of_its_profile_and_its_own(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "default-resources: {nodes: 1, runtime: 5}\n"
        "set-resources:\n  pretrain:\n    nodes: \"4 if wildcards.phase == 'long' else 2\"\n"
    )
    for phase, nodes in (("long", 4), ("phase1", 2)):
        given = world.resources(tmp_path, "pretrain", {"run": "x", "phase": phase})
        assert given == {"nodes": nodes, "runtime": 5}
    assert world.resources(tmp_path, "sft", {"run": "x"}) == {"nodes": 1, "runtime": 5}


def test_a_missing_profile_is_named(tmp_path):
    with pytest.raises(UserError, match="no config.yaml there; profiles: "):
        world.resources(tmp_path / "x", "sft", {})


@pytest.mark.parametrize(
    ("resources", "change", "said"),
    [
        ({"nodes": 4}, "", "gives rule pretrain no GPUs (gres)"),
        ({"nodes": 3, "gres": '"gpu:8"'}, "", "does not divide the profile's 24 GPUs"),
        (
            {"nodes": 4, "gres": '"gpu:8"'},
            "pretrain: {batch: {global: 9, micro: 3}}",
            "no multiple",
        ),
    ],
)
def test_what_does_not_fit_is_told_in_numbers(config_folder, profile, resources, change, said):
    config = with_runs(config_folder, child=f"extends: nano3\n{change}\n")
    with pytest.raises(UserError, match="^config/") as error:
        checked(config, "child", profile(**resources))
    assert said in str(error.value) and "pretrain." in str(error.value)


def test_a_world_that_fits_is_told_in_words(config_folder, profile):
    one = "{tensor: 1, pipeline: 1, context: 1, expert: 1, expert_tensor: 1, sequence: false}"
    keys = f"pretrain: {{parallel: {one}, phases: {{long_context: {{parallel: {one}}}}}}}"
    config = with_runs(config_folder, child=f"extends: nano3\n{keys}\n")
    line = next(world.check(config, "child", config.run("child"), profile(nodes=1, gres='"gpu:2"')))
    assert line == (
        "pretrain.phase1: 2 GPUs = 2 data-parallel × 1 (tensor 1, pipeline 1, context 1),"
        " experts over 1"
    )
