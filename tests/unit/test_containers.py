"""A program inside an image, by each runtime that a site may have."""

import subprocess
import sys
from pathlib import Path

import pytest

from nemoflow import images
from nemoflow.containers import CHANGE, Container
from nemoflow.site import Site

IMAGES = "images: {nemo: {about: x, reference: registry.example.org/a/nemo:1, engines: [megatron]}}"
ENV = {"MASTER_ADDR": "n1", "PYTHONPATH": "secret-looking"}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs/images.yaml").write_text(IMAGES)


def made(containers, **site):
    return Container.of(Site(containers=containers, environment=["HF_TOKEN"], **site), "nemo", ENV)


def test_none_is_the_python_that_runs_this():
    assert made("none") == Container([], [], sys.executable)


def test_pyxis():
    told, root = made("pyxis", mounts=["/m:/m:ro"]), Path.cwd()
    assert told.flags == [
        "--container-image=registry.example.org#a/nemo:1",
        f"--container-mounts={root}:{root},/m:/m:ro",
        f"--container-workdir={root}",
        "--no-container-mount-home",
        "--container-env=MASTER_ADDR,PYTHONPATH,HF_TOKEN",
    ]
    assert told.wrap(["x"]) == ["x"]


def test_apptainer():
    told, root = made("apptainer", mounts=["/m:/m"]), Path.cwd()
    bound = ["--bind", f"{root}:{root},/m:/m", "--pwd", str(root)]
    image = "docker://registry.example.org/a/nemo:1"
    assert told.wrap(["x"]) == ["apptainer", "exec", "--nv", "--no-home", *bound, image, "x"]


def test_enroot_starts_the_cached_file_in_the_repository(tmp_path):
    site = Site(containers="enroot", images=str(tmp_path / "images"))
    file = images.cached("nemo", site)
    file.parent.mkdir()
    file.touch()
    told, root = made("enroot", images=site.images).wrap(["x"]), str(Path.cwd())
    assert told[:4] == ["enroot", "start", "--mount", f"{root}:{root}"]
    assert told[-7:] == [str(file), "sh", "-c", CHANGE, "sh", root, "x"]
    passed = [told[i + 1] for i, word in enumerate(told) if word == "-e"]
    assert {"SLURM_PROCID", "MASTER_ADDR", "HF_TOKEN"} <= {*passed}
    assert not any("=" in name for name in passed)


def test_the_shell_of_enroot_changes_the_folder_and_becomes_the_program(tmp_path):
    (tmp_path / "a b").mkdir()
    command = [
        "sh",
        "-c",
        CHANGE,
        "sh",
        str(tmp_path / "a b"),
        "sh",
        "-c",
        "pwd; echo $1",
        "s",
        "x y",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path}/a b\nx y\n"
