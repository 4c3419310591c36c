"""A checkout of the product in a folder of its own, as a user's clone: edited, run, killed."""

import fcntl
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = (
    "Snakefile", "rules", "config", "workflow", "profiles", "pyproject.toml", ".gitignore",
    "envs", ".dvcignore", ".dvc/config", ".dvc/.gitignore",
)  # fmt: skip
SMALLEST = ROOT / "tests" / "data" / "config"
TARGET = "results/micro/eval.json"
PRELOADED = ROOT / "tests" / "preloaded"
ALONE = "TESTS_ALONE"


@cache
def preloaded() -> dict[str, str]:
    """The variable that names the socket of a server of this session (tests/preloaded).

    It ends with this process. Nothing where the engines' libraries are not installed.
    """
    if not importlib.util.find_spec("lm_eval"):
        return {}
    place = Path(tempfile.mkdtemp()) / "socket"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    line = [sys.executable, str(PRELOADED / "server.py"), str(place)]
    server = subprocess.Popen(line, env=environment, start_new_session=True)
    while not place.exists():
        assert server.poll() is None, "the server of tests/preloaded ended before it listened"
        time.sleep(0.01)
    return {"TESTS_PRELOADED": str(place)}


class Checkout:
    """Commands in a folder that holds the product's code and, perhaps, results."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.alone = ALONE in os.environ  # engines are whole processes, to be stopped and killed

    @classmethod
    def fresh(cls, folder: Path) -> "Checkout":
        """The product's code with the micro run's config, nothing built."""
        for name in CODE:
            source = ROOT / name
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            ignore = {"ignore": shutil.ignore_patterns("__pycache__")} if source.is_dir() else {}
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            copy(source, folder / name, **ignore)
        shutil.copytree(SMALLEST, folder / "config", dirs_exist_ok=True)
        return cls(folder)

    def copy(self, folder: Path) -> "Checkout":
        """The same checkout, results and all, in another folder."""
        shutil.copytree(self.folder, folder, symlinks=True, dirs_exist_ok=True)
        return Checkout(folder)

    @property
    def environment(self) -> dict[str, str]:
        """This checkout's own code, whatever is installed; the virtual environment not active.

        Its engines run in forks of a process that has their libraries loaded.
        """
        own = str(self.folder / "workflow")
        served = {} if self.alone else preloaded()
        path = os.pathsep.join([str(PRELOADED), own] if served else [own])
        return {**os.environ, **served, "PYTHONPATH": path}

    def run(self, *command: str, check: bool = False) -> subprocess.CompletedProcess:
        """Run a command in the checkout; stderr comes with stdout."""
        done, _ = self.timed(*command)
        assert not check or done.returncode == 0, done.stdout
        return done

    def timed(self, *command: str) -> tuple[subprocess.CompletedProcess, float]:
        """`run`, and the processor seconds it took: what works beside hardly changes them."""
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            done = subprocess.CompletedProcess(command, process.returncode, output.read())
        return done, usage.ru_utime + usage.ru_stime

    def start(self, *command: str) -> subprocess.Popen:
        """Start a command in a process group of its own, output into `output.txt`."""
        with open(self.folder / "output.txt", "ab") as output:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def snakemake(self, *arguments: str, profile: str = "profiles/local") -> list[str]:
        """The command line of Snakemake; targets go last, behind `--`."""
        return [sys.executable, "-m", "snakemake", "--profile", profile, *arguments]

    def build(self, *targets: str, check: bool = True) -> subprocess.CompletedProcess:
        """Build targets."""
        return self.run(*self.snakemake("--", *(targets or (TARGET,))), check=check)

    def planned(self, *targets: str, overrides: str | None = None) -> Counter:
        """How many jobs of each rule a dry run plans."""
        extra = ["--config", f"set={overrides}"] if overrides else []
        done = self.run(*self.snakemake("-n", *extra, "--", *(targets or (TARGET,))), check=True)
        rules = re.findall(r"^(?:local)?rule (\w+):$", done.stdout, flags=re.M)
        return Counter(rules)

    def nemoflow(self, *arguments: str, check: bool = True) -> str:
        """What `python -m nemoflow` prints."""
        return self.run(sys.executable, "-m", "nemoflow", *arguments, check=check).stdout

    def dvc(self, *arguments: str) -> str:
        """What DVC prints."""
        return self.run(sys.executable, "-m", "dvc", *arguments, check=True).stdout

    def processes(self, word: str) -> list:
        """The processes at work in this checkout whose command line holds a word."""
        import psutil  # which the contract environment has not

        found = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                if process.cwd() == str(self.folder) and word in line:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def edit(self, path: str, before: str, after: str) -> None:
        """Replace a text that stands in a file exactly once."""
        text = (self.folder / path).read_text()
        assert text.count(before) == 1, f"{before!r} stands {text.count(before)} times in {path}"
        (self.folder / path).write_text(text.replace(before, after))

    def json(self, path: str):
        """The content of a JSON file."""
        return json.loads((self.folder / path).read_text())

    def git(self, *arguments: str) -> str:
        """Run git as somebody."""
        named = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "gc.auto=0"]
        return self.run("git", *named, *arguments, check=True).stdout

    def commit_all(self) -> None:
        """Commit everything that is not ignored, in a repository made when missing."""
        if not (self.folder / ".git").exists():
            self.git("init", "--quiet", "--initial-branch=main")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=results")

    def products(self) -> dict[str, bytes]:
        """Every file under results/ and provenance/ that two equal builds share, byte for byte."""
        found = {}
        for root in ("results", "provenance/records"):
            for path in sorted((self.folder / root).rglob("*")):
                name = path.relative_to(self.folder).as_posix()
                places = ("/progress/", "/logs/", "/sources/")
                skipped = any(place in name for place in places) or name.endswith(".html")
                hidden = path.name.startswith(".") or "/." in name
                if path.is_file() and not skipped and not hidden:
                    found[name] = path.read_bytes()
        return found


def once(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first worker of a session makes, and all of them read.

    Sessions side by side share theirs where TESTS_SHARED names a folder.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    root = Path(os.environ.get("TESTS_SHARED", root))
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / f"{name}.done").exists():
            make(root / name)
            (root / f"{name}.done").touch()
    return root / name
