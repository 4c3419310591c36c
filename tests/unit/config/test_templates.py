"""Chat templates that mixtures name."""

import pytest

from nemoflow import specs
from nemoflow.config import Config
from nemoflow.errors import UserError

TEXT = "{% for message in messages %}{{ message.content }}{% endfor %}"
RENDER = {"mixture": "micro", "source": "chats"}


def with_template(folder, written, more=""):
    """The config with the micro mixture's template as written."""
    path = folder / "mixtures/micro.yaml"
    lines = path.read_text().splitlines()
    lines[1] = f"template: {written}\n{more}"
    path.write_text("\n".join(lines))
    return Config(folder)


def test_a_template_is_a_name_a_path_or_itself(config_folder):
    (config_folder / "own.jinja").write_text(TEXT)
    path = config_folder / "own.jinja"
    specs_of = [
        specs.of(with_template(config_folder, written), "render", RENDER)
        for written in ("chatml", path, f"'{TEXT}'")
    ]
    assert [spec.identity["template"] == TEXT for spec in specs_of] == [False, True, True]
    assert specs_of[1] == specs_of[2]


def test_a_path_is_frozen_with_the_config(config_folder, tmp_path):
    path = config_folder / "own.jinja"
    path.write_text(TEXT)
    frozen = with_template(config_folder, path).freeze(tmp_path)
    path.write_text("{{ changed }}")
    assert specs.of(Config.thawed(frozen), "render", RENDER).identity["template"] == TEXT


@pytest.mark.parametrize(
    ("written", "more", "message"),
    [
        ("chatlm", "", "micro.yaml:2: .*no template chatlm; did you mean chatml?"),
        ("own.jinja", "", "own.jinja: there is no such file"),
        ("'{% if %}'", "", "chat template, line 1: Expected an expression"),
        ("chatml", "reasoning: {low_effort: 0.1}", "does not know low_effort"),
    ],
)
def test_what_cannot_be_used_is_told_before_any_job(config_folder, written, more, message):
    config = with_template(config_folder, written, more)
    with pytest.raises(UserError, match=message):
        config.data("mixtures", "micro")
