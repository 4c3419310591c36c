"""What is particular to a site: its file, environment variables over it, mistakes in either."""

import os
from pathlib import Path

import pytest

from nemoflow import site
from nemoflow.errors import UserError
from nemoflow.site import Site

EXAMPLE = Path(__file__).parents[2] / "profiles/site.example.yaml"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for key in Site.model_fields:
        monkeypatch.delenv(site.variable(key), raising=False)


def written(tmp_path, text):
    path = tmp_path / "site.yaml"
    path.write_text(text)
    return path


def test_without_a_file_everything_is_slurms_own(tmp_path):
    assert site.load(tmp_path / "none.yaml") == Site()


def test_the_example_explains_every_key_and_its_variable():
    told = site.load(EXAMPLE)
    text = EXAMPLE.read_text()
    for key in Site.model_fields:
        assert getattr(told, key) and f"\n{key}:" in text and site.variable(key) in text


def test_variables_win_over_the_file(tmp_path, monkeypatch):
    path = written(tmp_path, "account: a\nmounts: [/x:/y]\n")
    monkeypatch.setenv("NEMOFLOW_ACCOUNT", "b")
    monkeypatch.setenv("NEMOFLOW_ENVIRONMENT", "HF_HOME,HF_TOKEN")
    monkeypatch.setenv("NEMOFLOW_HOPELESS_MINUTES", "3")
    told = site.load(path)
    assert (told.account, told.mounts, told.hopeless_minutes) == ("b", ["/x:/y"], 3)
    assert told.environment == ["HF_HOME", "HF_TOKEN"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("acount: a", r"site.yaml:1: acount is not a setting; did you mean account"),
        ("account: 7", r"site.yaml:1: account must be text, not 7"),
        ("account: a\ncontainers: docker", r"site.yaml:2: containers: .*'docker'"),
        ("mounts: [models]", r"site.yaml:1: mounts: 'models' is no /SOURCE:/TARGET"),
        ("environment: [HF_TOKEN=x]", r"site.yaml:1: environment: .* is no name of a variable"),
        ("hopeless_minutes: soon", r"site.yaml:1: hopeless_minutes must be a number"),
    ],
)
def test_a_mistake_is_told_with_file_and_key(tmp_path, text, said):
    with pytest.raises(UserError, match=said):
        site.load(written(tmp_path, text))


def test_a_mistake_in_a_variable_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("NEMOFLOW_LAUNCHER", "mpirun")
    with pytest.raises(UserError, match="NEMOFLOW_LAUNCHER=mpirun: launcher: "):
        site.load(tmp_path / "none.yaml")


def test_jobs_keep_the_site_they_were_submitted_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    site.FILE.write_text("account: a\nmounts: [/x:/y, /z:/z]\n")
    before = dict(os.environ)
    site.freeze()
    site.FILE.write_text("account: b\n")
    assert site.load().account == "a" and site.load().mounts == ["/x:/y", "/z:/z"]
    for name in set(os.environ) - set(before):
        monkeypatch.delenv(name)
