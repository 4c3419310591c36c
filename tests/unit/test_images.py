"""Images: their file, the cached file of each, and what they must provide."""

from importlib.metadata import version
from pathlib import Path
from typing import get_args

import pytest

from nemoflow import images
from nemoflow.config.run import Step
from nemoflow.errors import UserError
from nemoflow.site import Site

ROOT = Path(__file__).parents[2]
ONE = "images: {nemo: {about: x, reference: registry.example.org/nemo:1, engines: [megatron]}}"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A checkout with one image, and a site that keeps files of images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs/images.yaml").write_text(ONE)
    return tmp_path


@pytest.fixture
def runtime(place, monkeypatch):
    """Stand-in tools that write down how they were called, and make the file."""

    def install(name, script):
        (place / "bin").mkdir(exist_ok=True)
        tool = place / "bin" / name
        tool.write_text(f"#!/bin/sh\necho {name} $* >> {place}/calls\n{script}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{place}/bin:/usr/bin:/bin")

    return install


def site(containers="pyxis"):
    return Site(containers=containers, images=str(Path("images").absolute()))


def test_the_images_of_the_repository_serve_every_engine(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = images.load()
    assert {images.of_engine(e) for e in ("megatron", "nemo_rl", "vllm")} <= {*found}
    provided = {package for image in found.values() for package in image.provides}
    wanted = {"megatron-core", "megatron-bridge", "transformer-engine", "mamba-ssm", "deep_ep"}
    assert wanted | {"nemo-rl", "vllm"} <= provided
    assert images.of_engine("nemo_rl", "super-v3", ["mcqa"]) == images.of_engine("nemo_rl")
    swe = ["swebench_openhands_training"]
    assert images.of_engine("nemo_rl", "super-v3", swe) == "nemo_rl_swe"
    assert images.of_engine("nemo_rl", "nano-v3", swe) == "nemo_rl_nano"
    with pytest.raises(UserError, match="no image has engine nemo_rl with release v9"):
        images.of_engine("nemo_rl", "v9")
    for release in get_args(get_args(Step.model_fields["release"].annotation)[0]):
        images.of_engine("nemo_rl", release)
    assert images.of_environments(swe) is None
    assert images.of_environments(["ns_tools"]) == "sandbox"
    assert images.of_environments(["mcqa"]) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("images: {nemo: {}}", r"images.nemo.about is missing"),
        ("images: {nemo: {about: x, digest: abc}}", r"images.nemo.digest: .*'abc'"),
        ("images: {nemo: {about: x, refrence: y}}", r"refrence is not a setting; did you mean"),
    ],
)
def test_a_mistake_in_the_file_names_its_key(place, text, said):
    (place / "envs/images.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        images.load()


def test_the_cached_file_is_that_of_the_reference(place):
    before = images.cached("nemo", site())
    assert before.parent == place / "images" and before.suffix == ".sqsh"
    assert images.cached("nemo", site("apptainer")).suffix == ".sif"
    assert images.cached("nemo", Site(containers="pyxis")) is None
    (place / "envs/images.yaml").write_text(ONE.replace("nemo:1", "nemo:2"))
    assert images.cached("nemo", site()) != before
    assert images.to_start("nemo", site()) == "registry.example.org#nemo:2"
    file = images.cached("nemo", site())
    file.parent.mkdir()
    file.touch()
    assert images.to_start("nemo", site()) == str(file)


def test_an_image_without_reference_or_file_is_refused(place):
    with pytest.raises(UserError, match="enroot starts files alone.*results/images/nemo.json"):
        images.to_start("nemo", site("enroot"))
    (place / "envs/images.yaml").write_text("images: {nemo: {about: x}}")
    with pytest.raises(UserError, match="images.nemo.reference is not set"):
        images.to_start("nemo", site())


def test_apptainer_pulls_by_digest(place):
    image = images.named("nemo").model_copy(update={"digest": f"sha256:{'0' * 64}"})
    told = images.address(image, "apptainer")
    assert told == f"docker://registry.example.org/nemo@sha256:{'0' * 64}"
    assert images.address(image, "enroot") == "docker://registry.example.org#nemo:1"


@pytest.mark.parametrize(
    ("containers", "tool", "script", "called"),
    [
        ("pyxis", "enroot", 'touch "$3"', "enroot import --output "),
        ("enroot", "enroot", 'touch "$3"', "enroot import --output "),
        ("apptainer", "apptainer", 'touch "$2"', "apptainer pull "),
    ],
)
def test_an_image_is_fetched_once(place, runtime, containers, tool, script, called):
    runtime(tool, script)
    for _ in range(2):
        images.fetch("nemo", site(containers))
    (line,) = (place / "calls").read_text().splitlines()
    assert line.startswith(called) and "docker://registry.example.org" in line
    assert [p.name for p in (place / "images").iterdir()] == [
        images.cached("nemo", site(containers)).name
    ]


def test_a_failed_fetch_leaves_nothing(place, runtime):
    runtime("enroot", 'touch "$3"; exit 4')
    with pytest.raises(UserError, match="enroot import .* failed with exit code 4"):
        images.fetch("nemo", site())
    assert not list((place / "images").iterdir())


def test_a_site_without_a_folder_or_a_runtime_cannot_keep_images(place, monkeypatch):
    with pytest.raises(UserError, match="set images in profiles/site.yaml"):
        images.fetch("nemo", Site(containers="pyxis"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="enroot is not installed"):
        images.fetch("nemo", site())


def test_the_probe_names_what_is_missing_and_what_is_found(place, monkeypatch):
    have = version("pydantic")
    monkeypatch.delenv("NEMOFLOW_IMAGE", raising=False)
    images.probe()
    (place / "envs/images.yaml").write_text(
        "images:\n"
        "  nemo: {about: x, provides: {pydantic: '>=1', no-such-package: '>=3'}}\n"
        "  old: {about: x, provides: {pydantic: '<1'}}\n"
        "  good: {about: x, provides: {pydantic: ''}}\n"
    )
    monkeypatch.setenv("NEMOFLOW_IMAGE", "good")
    images.probe()
    with pytest.raises(UserError, match="no-such-package: wanted >=3, not installed"):
        images.probe("nemo")
    with pytest.raises(UserError, match=f"image old .*pydantic: wanted <1, found {have}"):
        images.probe("old")


def test_a_version_before_the_release_is_enough_where_asked():
    assert not images.problems({"pydantic": ">=1.0rc0"})
