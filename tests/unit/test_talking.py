"""Which model a conversation is with, and what its turns are; the model itself stands in."""

import io
import json
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest

from nemoflow import talking
from nemoflow.errors import UserError
from nemoflow.files import write_json
from small_config import with_runs

STAND_IN = """
import json, os, signal, sys
tell = lambda **told: print(json.dumps(told), flush=True)
tell(context=64, template={template})
for line in sys.stdin:
    asked = json.loads(line)
    text = json.dumps(asked.get("messages", asked.get("text")))
    if "die" in text:
        os.kill(os.getpid(), signal.SIGKILL)
    if "long" in text:
        tell(error="the prompt is too long")
        continue
    tell(piece="to ")
    tell(piece=text)
    tell(end="length" if "cut" in text else "stop", dropped=text.count("full"))
"""


def parsed(*words):
    parser = ArgumentParser()
    talking.arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def speaker(monkeypatch):
    """Starts a conversation with a stand-in of the model's process."""
    popen, opened = talking.subprocess.Popen, []

    def begin(*words, template=True):
        line = [sys.executable, "-c", STAND_IN.format(template=template)]
        monkeypatch.setattr(talking.subprocess, "Popen", lambda _, **named: popen(line, **named))
        opened.append(talking.Speaker(Path("export/sft"), parsed(*words)))
        return opened[-1]

    yield begin
    for each in opened:
        each.__exit__()


@pytest.fixture
def exports(config_folder, tmp_path, monkeypatch):
    """Config of micro and a child; some of their stages are exported."""
    monkeypatch.chdir(tmp_path)
    for stage in ("pretrain", "sft", "rl.rlvr1"):
        write_json(f"results/micro/export/{stage}.json", {})
    return with_runs(config_folder, child="extends: micro\nstart: rl.rlvr2\n")


def test_the_default_is_the_last_stage_that_is_exported(exports):
    assert talking.exported(exports, "micro", None) == "results/micro/export/rl.rlvr1.json"
    assert talking.exported(exports, "child", None) == "results/micro/export/rl.rlvr1.json"
    write_json("results/child/export/rl.json", {})
    assert talking.exported(exports, "child", None) == "results/child/export/rl.json"


def test_a_stage_has_a_short_and_a_full_name(exports):
    for name in ("pretrain", "pretrain.phase2"):
        path = talking.exported(exports, "micro", name)
        assert path in (f"results/micro/export/{short}.json" for short in ("pretrain", name))
    write_json("results/micro/export/rl.rlvr2.json", {})
    assert talking.exported(exports, "micro", "rl") == "results/micro/export/rl.rlvr2.json"


@pytest.mark.parametrize(
    ("run", "stage", "said"),
    [
        ("micr", None, "there is no run micr; did you mean micro?"),
        ("micro", "stf", "micro: there is no stage stf; did you mean sft?"),
        ("micro", "rl.rlvr2", "results/micro/export/rl.rlvr2.json is not built; build it"),
        ("super3-tiny", None, "results/super3-tiny/export/rl.json is not built; build it"),
    ],
)
def test_what_is_not_there_is_named(exports, run, stage, said):
    with pytest.raises(UserError, match=said.replace(".", r"\.").replace("?", r"\?")):
        talking.exported(exports, run, stage)


def test_turns_are_the_user_s_and_the_model_s(speaker, capsys):
    speaker = speaker("micro", "--system", "Be brief.")
    answer = speaker.answer(["one", "two", "three"])
    roles = ["system", "user", "assistant", "user"]
    texts = ["Be brief.", "one", "two", "three"]
    turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    assert answer == f"to {json.dumps(turns)}"
    assert capsys.readouterr().out == f"{answer}\n"


def test_what_became_of_an_answer_is_said(speaker, capsys):
    speaker = speaker("micro", "--plain")
    speaker.answer(["full and cut"])
    told = capsys.readouterr().err
    assert "the context is full: the 1 oldest turns" in told and "--max-new-tokens" in told
    with pytest.raises(UserError, match="too long"):
        speaker.answer(["long"])
    assert speaker.answer(["again"]) == 'to "again"'


def test_a_killed_process_is_an_error(speaker):
    with pytest.raises(UserError, match="was killed .signal 9."):
        speaker("micro", "--plain").answer(["die"])


def test_a_model_without_a_template_only_continues(speaker):
    with pytest.raises(UserError, match="export/sft has no chat template; --plain"):
        speaker("micro", template=False)
    assert speaker("micro", "--plain", template=False).answer(["Once"]) == 'to "Once"'


def test_a_system_prompt_needs_a_template(exports):
    with pytest.raises(UserError, match="--system needs the template"):
        talking.chat(exports, parsed("micro", "--plain", "--system", "x"))


def test_nothing_is_asked_by_an_empty_standard_input(exports, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    monkeypatch.setattr(talking, "need", lambda paths: paths)
    with pytest.raises(UserError, match="standard input is empty"):
        talking.chat(exports, parsed("micro"))


@pytest.mark.parametrize("word", ["--max-new-tokens=0", "--temperature=-1", "--temperature=inf"])
def test_numbers_are_checked(word, capsys):
    with pytest.raises(SystemExit):
        parsed("micro", word)
    assert "invalid" in capsys.readouterr().err


def test_a_conversation_grows_until_it_begins_anew(speaker, monkeypatch, capsys):
    lines = iter(["one", "", "/nothing", "two", "/new", "three long", "four", "/quit", "never"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    talking.converse(speaker("micro"), Path("export/pretrain.json"), parsed("micro"))
    told = capsys.readouterr()
    first, second, third = told.out.splitlines()
    assert len(json.loads(first.removeprefix("to "))) == 1
    assert [turn["role"] for turn in json.loads(second.removeprefix("to "))][-1] == "user"
    assert len(json.loads(second.removeprefix("to "))) == 3
    assert json.loads(third.removeprefix("to ")) == [{"role": "user", "content": "four"}]
    assert "no command /nothing" in told.err and "error: the prompt is too long" in told.err
    assert "a base model knows no turns" in told.err
