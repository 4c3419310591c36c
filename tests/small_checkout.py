"""A checkout with git and DVC, small products sealed and pushed by hand, and a look at them."""

import shutil
import subprocess
from pathlib import Path

from nemoflow import disk, manifest, storage
from nemoflow.files import write_whole
from nemoflow.survey import Survey
from nemoflow.unreferenced import things

ROOT = Path(__file__).parents[1]
KEPT, GONE = "results/kept/sft/checkpoint.json", "results/gone/sft/checkpoint.json"


def work_in(folder, monkeypatch):
    """Begin a checkout in `folder`/checkout whose remote is `folder`/far; DVC's state is inside."""
    for name in ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
        monkeypatch.setenv(name, str(folder / name))
    (folder / "checkout" / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(folder / "checkout")
    git("init", "--quiet", "--initial-branch=main")
    shutil.copy(ROOT / ".gitignore", ".")
    write_whole(".dvc/.gitignore", "/tmp\n/cache\n")
    configure("    remote = far\n['remote \"far\"']\n    url = ../../far\n")


def git(*arguments):
    named = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "gc.auto=0"]
    return subprocess.run([*named, *arguments], check=True, capture_output=True, text=True).stdout


def commit():
    git("add", "--all")
    git("commit", "--quiet", "--allow-empty", "--message=x")


def configure(text):
    write_whole(".dvc/config", "[core]\n    analytics = false\n" + text)


def make(path, text="", sealed=False, pushed=False):
    """A product of two files."""
    for name in ("model.bin", "deep/config.json"):
        write_whole(manifest.payload(path) / name, f"{name} of {path} {text}" * 20)
    manifest.write(path, {"stage": "sft", "text": text})
    content = manifest.read(path)
    if sealed or pushed:
        store = storage.Storage()
        store.keep(manifest.payload(path), content)
        manifest.write_pointer(path, content)
        if pushed:
            store.send(storage.objects(content))
    return content


def forget(path):
    """Remove a run's small files, as `git rm -r` does."""
    for file in (Path(path), Path(path).with_suffix(".dvc")):
        file.unlink(missing_ok=True)


def listed():
    """{name: (can go, why)} of what nothing refers to."""
    return {thing.name: (thing.removable, thing.why) for thing in things(Survey())}


def files():
    return {str(path) for path in [*Path("results").rglob("*"), *Path(".dvc").rglob("*")]}


def clean(yes=True):
    return "\n".join(disk.disk(clean=True, yes=yes))
