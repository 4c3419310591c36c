"""A folder in which plan.py and tokens.py work on a corpus of the test's own, as a job would."""

import os
import random
import subprocess
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from nemoflow import files, manifest, specs

SCRIPTS = Path(__file__).parents[1] / "workflow" / "scripts"
EOS = "<|endoftext|>"
SETTINGS = {
    "corpus": "web",
    "text_field": "text",
    "dtype": "int32",
    "add_bos": False,
    "add_eos": True,
    "min_doc_chars": 0,
    "special_tokens": "keep",
    "splits": {"valid": 0.01, "test": 0.01},
    "seed": 42,
}
VOWELS = ("a", "e", "i", "o", "u", "an", "é", "東")
SYLLABLES = [a + b for a in "bcdfghjklmnprstvwz" for b in VOWELS]


def texts(size, seed=0):
    """Ordinary text of about `size` bytes, the same each time: words, blanks, lines, numbers."""
    drawn = random.Random(seed)
    words = ["".join(drawn.choices(SYLLABLES, k=drawn.randint(1, 4))) for _ in range(20_000)]
    weights = [1 / (place + 3) for place in range(len(words))]
    pool = drawn.choices(words, weights, k=200_000)
    while size > 0:
        start, count = drawn.randrange(len(pool)), drawn.randint(5, 800)
        text = f"{drawn.randrange(10**6)} {' '.join(pool[start : start + count])}.\n"
        size -= 7 * count + 20
        yield text


def write_tokenizer(folder):
    """A tokenizer of 400 ids that passes gigatoken's gate, and its manifest beside the folder."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts(100_000), trainer)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    files.write_json(folder / "tokenizer_config.json", {"eos_token": EOS})
    manifest.write(folder.with_suffix(".json"), {"stage": "tokenizer"}, vocabulary=400)


class TokenJob:
    """plan.py and tokens.py on one source, in one folder; products lie in its data/."""

    output = "data/web.parts/0000.json"

    def __init__(self, folder, source, shards=1, **settings):
        self.folder, self.source, self.shards = folder, source, shards
        self.settings = SETTINGS | {"max_dropped": 0.001} | settings
        self.payload = folder / "data/web/0000"
        if not (folder / "data/tok.json").exists():
            write_tokenizer(folder / "data/tok")

    def _command(self, stage, options, flags, **identity):
        told = {"stage": stage, "version": specs.VERSIONS[stage], **identity}
        path = self.folder / f"{stage}.spec.json"
        spec = {"stage": stage, "run": None, "identity": told, "options": options}
        files.write_json(path, spec)
        script = str(SCRIPTS / f"{stage}.py")
        return [sys.executable, script, "--spec", path.name, "--sources", "cache", *flags]

    def plan_command(self):
        """The command line of plan.py."""
        cut = {"source": self.source, "parts": 1, "shards_per_part": self.shards}
        return self._command("plan", {}, ["--output", "data/plan.json"], **cut)

    def tokens_command(self, workers=2):
        """The command line of tokens.py."""
        identity = {key: value for key, value in self.settings.items() if key != "max_dropped"}
        options = {"source": self.source, "max_dropped": self.settings["max_dropped"]}
        given = ["--plan", "data/plan.json", "--tokenizer", "data/tok.json", "--part", "0000"]
        given += ["--workers", str(workers), "--output", self.output]
        return self._command("tokens", options, given, **identity)

    def run(self, command):
        """Run a command to its end."""
        (self.folder / self.output).parent.mkdir(parents=True, exist_ok=True)
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True)

    def start(self, command):
        """Start a command in a session of its own; what it says goes into said.txt."""
        with open(self.folder / "said.txt", "wb") as said:
            return subprocess.Popen(
                command, cwd=self.folder, stdout=said, stderr=said, start_new_session=True
            )

    def make(self, workers=2):
        """Plan and tokenize; the part's manifest."""
        for command in (self.plan_command(), self.tokens_command(workers)):
            done = self.run(command)
            assert done.returncode == 0, done.stderr
        return files.read_json(self.folder / self.output)

    def left(self):
        """Names of temporary files, wherever in the folder."""
        return sorted(str(p) for p in self.folder.rglob("*") if p.name.endswith((".tmp", ".new")))


def written(folder):
    """How many bytes lie in a folder, of finished files and of those in the making."""
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except FileNotFoundError:  # there is none yet, or a file was given its name
        return 0


def members(session):
    """The processes of a session that live, by what /proc says of them."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            told = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(told[3]) == session and told[0] != "Z":
            found.append(int(name))
    return found
