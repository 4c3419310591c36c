"""`python -m nemoflow chat`: an exported model of a run, asked from a terminal or a pipe."""

import json
import os
import signal
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nemoflow import graph
from nemoflow.config import Config
from nemoflow.config.messages import nearest
from nemoflow.config.run import Run
from nemoflow.errors import UserError
from nemoflow.holders import Holders
from nemoflow.manifest import payload
from nemoflow.need import need
from nemoflow.products import PATHS
from nemoflow.progress import say

HELP = "/new begins anew, /quit or ^D ends, ^C ends an answer"

Json = dict[str, Any]


def arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.epilog = (
        "On a terminal, a conversation: " + HELP + ". Else the prompt is read from standard input,"
        " and the answer alone goes to standard output: echo 'What is 3 + 4?' | python -m nemoflow"
        " chat super3-tiny sft"
    )
    parser.add_argument("run")
    stages = "pretrain, merged, sft, rl, or one by name; default: the last that is exported"
    parser.add_argument("stage", nargs="?", help=stages)
    parser.add_argument(
        "--plain", action="store_true", help="no chat template: the model continues the text"
    )
    parser.add_argument("--system", metavar="TEXT", help="a system prompt")
    parser.add_argument(
        "--max-new-tokens", type=positive, metavar="N",
        help="of an answer; default: 512, at most half of the context",
    )  # fmt: skip
    parser.add_argument(
        "--temperature", type=rate, default=0.0, metavar="T",
        help="default: 0, always the likeliest token",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of draws; default: %(default)s")


def positive(text: str) -> int:
    """A whole number from 1 up; argparse tells of any other."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def rate(text: str) -> float:
    """A number from 0 up; argparse tells of any other."""
    if not 0 <= (number := float(text)) < float("inf"):
        raise ValueError
    return number


def chat(config: Config, asked: Namespace) -> list[str]:
    """Talk to a model; nothing is left to print.

    Raises:
        UserError: there is no such run or stage, it is not exported, its bytes are nowhere to be
            had, or what is asked leaves no room for an answer.
    """
    if asked.plain and asked.system:
        raise UserError("--system needs the template that --plain leaves out; drop one of them")
    path = exported(config, asked.run, asked.stage)
    need([path])
    prompt = None if sys.stdin.isatty() else sys.stdin.read().strip("\n")
    if prompt == "":
        raise UserError("standard input is empty: write the prompt there, or use a terminal")
    with Speaker(payload(path), asked) as speaker:
        if prompt is None:
            converse(speaker, Path(path), asked)
        else:
            speaker.answer([prompt])
    return []


def exported(config: Config, run: str, stage: str | None) -> str:
    """The manifest of a stage's export, or of the last stage that has one."""
    model, holders = config.run(run), Holders(config)
    stages = known(model)
    if stage is not None and stage not in stages:
        raise UserError(f"{run}: {nearest('stage', stage, stages)}")

    def path_of(name: str) -> str:
        owner = holders.exporter(SimpleNamespace(run=run, stage=name), name)
        return PATHS["export"].format(run=owner, stage=name)

    for name in [stage] if stage else reversed(stages):
        full = graph.full_name(model, name)
        for path in map(path_of, (name, full, graph.short_name(model, full))):
            if Path(path).exists():
                return path
    wanted = path_of(stage or "rl")
    raise UserError(
        f"{wanted} is not built; build it:\n  snakemake --profile profiles/local {wanted}"
    )


def known(model: Run) -> list[str]:
    """The names of all stages that can be exported, in order: an average behind its phase."""
    found: list[str] = []
    for full in graph.chain(model):
        averages = [each for each in graph.merged(model) if graph.trained(model, each) == full]
        for each in (full, *averages):
            found += dict.fromkeys((each, graph.short_name(model, each)))
    return found


def converse(speaker: "Speaker", path: Path, asked: Namespace) -> None:
    """Ask and answer in turns, until the end of input."""
    import readline  # noqa: F401 (gives input() a history)

    name = f"{asked.run} {path.stem}"
    say(f"{name}: {'it continues your text' if asked.plain else 'ask it something'}; {HELP}")
    if not asked.plain and path.stem.startswith(("pretrain", "merged")):
        say("a base model knows no turns: --plain lets it continue a text")
    said: list[str] = []
    while True:
        try:
            prompt = input("> ")
        except EOFError:
            return print()
        except KeyboardInterrupt:
            print()
            continue
        if prompt.strip() == "/quit":
            return None
        if prompt.strip() == "/new":
            said = []
        elif prompt.strip().startswith("/"):
            say(f"no command {prompt.strip()}: {HELP}")
        elif prompt.strip():
            said = [] if asked.plain else said
            try:
                said += [prompt, speaker.answer([*said, prompt])]
            except UserError as error:
                say(f"error: {error}")


class Speaker:
    """The process that holds the model; a context manager."""

    def __init__(self, folder: Path, asked: Namespace):
        self._asked = asked
        command = [sys.executable, "-m", "nemoflow.engines.answering", folder, str(asked.seed)]
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        ready = self._heard()
        if not asked.plain and not ready["template"]:
            self.__exit__()
            raise UserError(f"{folder} has no chat template; --plain lets it continue your text")

    def __enter__(self) -> "Speaker":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()

    def answer(self, said: list[str]) -> str:
        """Print the answer to the last of some turns, which are the user's and the model's.

        Raises:
            UserError: they leave no room for it.
        """
        with uninterrupted():
            with suppress(BrokenPipeError):
                print(json.dumps(self._request(said)), file=self._process.stdin, flush=True)
            pieces = []
            while "piece" in (told := self._heard()):
                pieces.append(told["piece"])
                print(told["piece"], end="", flush=True)
        if "error" in told:
            raise UserError(told["error"])
        print()
        self._explain(told)
        return "".join(pieces)

    def _request(self, said: list[str]) -> Json:
        settings = {name: getattr(self._asked, name) for name in ("max_new_tokens", "temperature")}
        if self._asked.plain:
            return {"text": said[-1], **settings}
        roles = ["user", "assistant"] * len(said)
        turns = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
        system = [{"role": "system", "content": self._asked.system}] if self._asked.system else []
        return {"messages": system + turns, **settings}

    def _heard(self) -> Json:
        """The next line; where there is none the process has said why, unless it was killed."""
        if line := self._process.stdout.readline():
            return json.loads(line)
        if (code := self._process.wait()) < 0:
            raise UserError(
                f"the process that holds the model was killed (signal {-code}), most likely for"
                " want of memory; take a machine with more"
            )
        sys.exit(code or 1)

    def _explain(self, told: Json) -> None:
        if told["dropped"]:
            say(f"[the context is full: the {told['dropped']} oldest turns were left out]")
        if told["end"] == "length":
            say("[cut: --max-new-tokens lets it go on]")
        if told["end"] == "interrupted":
            say("[interrupted]")


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Leave an interrupt to the process that answers: it ends the answer, and tells."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
