"""Container images: what envs/images.yaml says of each, the cached file, and the probe.

An image is chosen by the engine that runs in it. What it must provide is compared with what is
installed there as a job's first act: `python -m nemoflow.images NAME` does the same by hand.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.specifiers import SpecifierSet
from pydantic import Field

from nemoflow.config import layers
from nemoflow.config.base import Name, Positive, Strict
from nemoflow.config.messages import nearest, validated
from nemoflow.errors import UserError, report
from nemoflow.files import digest
from nemoflow.site import Site

FILE = Path("envs/images.yaml")
FETCHED = {"reference", "digest"}  # what decides about the file; the rest says how it is used
SUFFIX = {"pyxis": ".sqsh", "enroot": ".sqsh", "apptainer": ".sif"}


class Image(Strict):
    """One image; envs/images.yaml explains every key."""

    about: str
    reference: str | None = None
    digest: str | None = Field(None, pattern="^sha256:[0-9a-f]{64}$")
    engines: list[str] = Field([])
    releases: list[str] = Field([])
    python: str = "python"
    provides: dict[str, str] = Field({})
    environments: list[str] = Field([])
    command: list[str] = Field([])
    port: Positive | None = None


class Images(Strict):
    """The file."""

    images: dict[Name, Image]


def load(path: Path = FILE) -> dict[str, Image]:
    """All images by name.

    Raises:
        UserError: there is no such file, or a key of it is wrong.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such file; a job must start in the repository's root")
    return validated(Images, layers.of_file(path, str(path)), str(path)).images


def named(name: str) -> Image:
    """One image.

    Raises:
        UserError: there is none of that name.
    """
    images = load()
    if name not in images:
        raise UserError(f"{FILE}: {nearest('image', name, sorted(images))}")
    return images[name]


def of_engine(engine: str, release: str | None = None, environments: Iterable[str] = ()) -> str:
    """The name of the image that an engine runs in; the first that fits.

    One made for some of the step's environments goes before one made for none.

    Raises:
        UserError: none fits.
    """
    fitting = {
        name: set(image.environments)
        for name, image in load().items()
        if engine in image.engines and (release in image.releases or not release)
    }
    special = [name for name, made_for in fitting.items() if made_for & set(environments)]
    usual = [name for name, made_for in fitting.items() if not made_for]
    if not (special or usual):
        raise UserError(f"{FILE}: no image has engine {engine} with release {release}; add one")
    return (special or usual)[0]


def of_environments(environments: list[str]) -> str | None:
    """The name of the service that an RL step's environments need beside the job, if any."""
    for name, image in load().items():
        if not image.engines and set(environments) & set(image.environments):
            return name
    return None


def cached(name: str, site: Site) -> Path | None:
    """Where the image lies as one file at this site; None where it names no folder or runtime.

    The name holds a digest of the reference: a file of another reference is not this image.
    """
    if site.images is None or site.containers == "none":
        return None
    image = named(name)
    told = digest([image.reference, image.digest])[:8]
    return Path(site.images) / f"{name}-{told}{SUFFIX[site.containers]}"


def to_start(name: str, site: Site) -> str:
    """What a container runtime is to start: the cached file where it is there, else the reference.

    Raises:
        UserError: there is neither, or only what the runtime cannot start.
    """
    image, file = named(name), cached(name, site)
    if file and file.exists():
        return str(file)
    target = f"results/images/{name}.json"
    if site.containers == "enroot":
        raise UserError(
            f"image {name}: enroot starts files alone, and {file or 'the images key of the site'}"
            f" is not there; name a folder under images in profiles/site.yaml and build {target}"
        )
    if image.reference is None:
        raise UserError(
            f"{FILE}: images.{name}.reference is not set, and no file of it lies at"
            f" {file or 'the images folder of profiles/site.yaml'}; set it, or put the file there"
        )
    return address(image, site.containers).removeprefix("docker://" * (site.containers == "pyxis"))


def address(image: Image, runtime: str) -> str:
    """An image's address as a container runtime writes it.

    enroot, and pyxis through it, part the registry from the name by `#`
    (github.com/NVIDIA/enroot, doc/cmd/import.md) and take a tag; apptainer takes a digest too.
    """
    if runtime == "apptainer":
        pinned = f"{image.reference.rpartition(':')[0]}@{image.digest}"
        return f"docker://{pinned if image.digest else image.reference}"
    registry, slash, name = image.reference.partition("/")
    parted = f"{registry}#{name}" if slash and "." in registry else image.reference
    return f"docker://{parted}"


def fetch(name: str, site: Site) -> None:
    """Bring an image into the site's folder of images, whole or not at all.

    Raises:
        UserError: the site names no folder or no runtime, or the runtime failed.
    """
    file, image = cached(name, site), named(name)
    if file is None or image.reference is None:
        raise UserError(
            f"image {name}: set {'images' if image.reference else 'its reference'} in"
            f" {'profiles/site.yaml, a folder for cached files' if image.reference else FILE}"
        )
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{os.getpid()}.{file.name}")
    place = address(image, site.containers)
    squash = ["enroot", "import", "--output", str(part), place]
    argv = ["apptainer", "pull", str(part), place] if site.containers == "apptainer" else squash
    try:
        code = subprocess.run(argv).returncode
        if code or not part.exists():
            raise UserError(f"{shlex.join(argv)} failed with exit code {code}")
        part.replace(file)
    except FileNotFoundError:
        raise UserError(f"{argv[0]} is not installed on this node; nothing was fetched") from None
    finally:
        part.unlink(missing_ok=True)


def problems(provides: dict[str, str]) -> list[str]:
    """What of {package: versions} is not installed here, one sentence each."""
    found = []
    for package, wanted in provides.items():
        try:
            here = version(package)
        except PackageNotFoundError:
            found.append(f"{package}: wanted {wanted or 'any version'}, not installed")
            continue
        if not SpecifierSet(wanted, prereleases=True).contains(here):
            found.append(f"{package}: wanted {wanted}, found {here}")
    return found


def probe(name: str | None = None) -> None:
    """Compare what is installed here with what the image of this job must provide.

    Raises:
        UserError: naming each package, what is wanted and what is found.
    """
    name = name or os.environ.get("NEMOFLOW_IMAGE")
    if name and (missing := problems(named(name).provides)):
        raise UserError(
            f"image {name} is not what {FILE} says: {'; '.join(missing)}. Start the job in that"
            " image (containers in profiles/site.yaml), or correct the file"
        )


if __name__ == "__main__":
    report(lambda: probe(sys.argv[1]))
