"""A corpus of prose, code and other scripts, made from Debian packages.

The packages are downloaded by `apt-get`, which checks their signatures, and read without being
unpacked to disk. Their files are cut into documents of about 2.5 kB, repeated ones are left out,
and the rest is put into an order that their digests give, so that any beginning of the corpus
holds the three kinds in equal shares. The same packages give the same bytes.
"""

import gzip
import hashlib
import html
import io
import json
import lzma
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from nemoflow.errors import UserError
from nemoflow.files import write_json
from nemoflow.progress import say

LANGUAGES = ("de", "fr", "ja", "zh-cn", "ru", "ko", "hi", "en-us")
PACKAGES = (
    "linux-source-6.1", "golang-1.19-src", "rust-src", "openjdk-17-source", "openjdk-17-doc",
    "emacs-el", "installation-guide-amd64", "debian-handbook", "postgresql-doc-15", "dict-gcide",
    "dict-wn", "git-doc", "perl-doc", "gnome-user-docs",
    *(f"libreoffice-help-{language}" for language in LANGUAGES),
    *(f"manpages-{language}" for language in ("fr", "de", "ja", "zh", "ru")),
)  # fmt: skip
SHARES = {"prose": 0.25, "code": 0.60, "scripts": 0.15}  # where there is enough of each
MEGABYTES = 1050
BUCKETS = 16  # one of a kind at a time is sorted in memory
ROOM = 4 << 30  # bytes of disk while it is made
KERNEL = 0.5  # share of the kernel's files that is taken
MEDIAN, SIGMA, SHORTEST, LONGEST = 2500, 1.0, 80, 200_000  # characters of a document, lognormal

CODE = {
    ".c", ".dts", ".el", ".go", ".h", ".java", ".js", ".pl", ".py", ".rs", ".s", ".sh", ".toml",
    ".yaml",
}  # fmt: skip
PROSE = {".dict", ".html", ".info", ".man", ".md", ".page", ".pod", ".rst", ".txt"}
OTHER = re.compile(
    r"/libreoffice/help/(?!en-US)|/man/[a-z]{2}(_[A-Z]{2})?/|/share/help/(?!C/)"
    r"|/debian-handbook/html/(?!en-US)|/installation-guide-amd64/(?!en/)"
)
MARKUP = re.compile(r"(?s)<(script|style|head)\b.*?</\1>|<[^>]+>")
ROFF = re.compile(r"(?m)^\.\\\".*\n|^\.[A-Za-z]{1,3} ?|\\f.|\\&")


class Document(NamedTuple):
    """A text, the digest that gives its place, and the file of a package it is from."""

    digest: bytes
    path: str
    text: str


def build(folder: Path, output: Path) -> None:
    """Write the corpus, JSON lines of {"id", "kind", "path", "text"}, and its packages' versions.

    UserError where apt-get or dpkg-deb is missing or fails, and where the disk is too full.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise UserError(f"the corpus is made from Debian packages, and there is no {tool} here")
    if (free := shutil.disk_usage(folder).free) < ROOM:
        raise UserError(
            f"{folder}: {free >> 20:,} MiB are free, making the corpus takes {ROOM >> 20:,}"
        )
    packages = download(folder / "packages")
    say("making a corpus of them, about two minutes …")
    with tempfile.TemporaryDirectory(dir=folder) as sorting:
        supply = spread(packages, Path(sorting))
        temporary = output.with_suffix(".tmp")
        write(Path(sorting), supply, temporary)
        temporary.replace(output)
    write_json(output.with_suffix(".packages.json"), [package.name for package in packages])


def download(folder: Path) -> list[Path]:
    """The packages, sorted by name; those that lie there already are not fetched again."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in PACKAGES if not list(folder.glob(f"{name}_*.deb"))]
    if missing:
        say(f"downloading {len(missing)} Debian packages, up to 400 MB …")
        command = ["apt-get", "download", "--quiet", "--quiet", *missing]
        if subprocess.run(command, cwd=folder).returncode:
            raise UserError(
                "apt-get download failed, as it says above: run apt-get update (packages of"
                " Debian 12), or give a corpus of your own with --corpus FILE"
            )
    return [sorted(folder.glob(f"{name}_*.deb"))[-1] for name in sorted(PACKAGES)]


def spread(packages: list[Path], folder: Path) -> dict[str, int]:
    """Write each document into the bucket its digest names; bytes of text by kind."""
    lengths, seen = np.random.default_rng(0), set()
    supply = dict.fromkeys(SHARES, 0)
    with ExitStack() as stack:
        files = {
            (kind, bucket): stack.enter_context(open(folder / f"{kind}-{bucket}", "w"))
            for kind in SHARES
            for bucket in range(BUCKETS)
        }
        for package in tqdm(packages, "reading packages", unit="package", disable=None):
            for name, content in members(package):
                if not (kind := kind_of(name)):
                    continue
                for document in cut(name, text_of(name, content), lengths):
                    if document.digest not in seen:
                        seen.add(document.digest)
                        supply[kind] += len(document.text.encode())
                        bucket = document.digest[0] * BUCKETS // 256
                        row = [document.digest.hex(), document.path, document.text]
                        files[kind, bucket].write(json.dumps(row) + "\n")
    return supply


def members(package: Path) -> Iterator[tuple[str, bytes]]:
    """(path, content) of a package's files; archives of sources in it are entered."""
    command = ["dpkg-deb", "--fsys-tarfile", package]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as tool,
        tarfile.open(fileobj=tool.stdout, mode="r|") as files,
    ):
        for member in files:
            if not member.isfile():
                continue
            if member.name.endswith(".tar.xz"):
                with tarfile.open(fileobj=files.extractfile(member), mode="r|xz") as inner:
                    yield from sampled(inner)
            elif member.name.endswith("/src.zip"):
                with zipfile.ZipFile(io.BytesIO(files.extractfile(member).read())) as inner:
                    yield from ((name, inner.read(name)) for name in sorted(inner.namelist()))
            elif kind_of(member.name):
                yield member.name, files.extractfile(member).read()
    if tool.returncode:
        raise UserError(f"{package}: dpkg-deb cannot read it; remove it, it is downloaded again")


def sampled(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """(path, content) of a share of an archive's files."""
    for member in archive:
        place = hashlib.sha1(member.name.encode()).digest()[0]
        if member.isfile() and kind_of(member.name) and place < 256 * KERNEL:
            yield member.name, archive.extractfile(member).read()


def suffix_of(name: str) -> str:
    """What a file is by its name, a .gz or .dz aside."""
    path = Path(name)
    if path.suffix in (".gz", ".dz"):
        return ".man" if "/man/" in name else Path(path.stem).suffix
    return path.suffix.lower()


def kind_of(name: str) -> str:
    """The kind prose, code, scripts, or nothing for a file that holds no text."""
    suffix = suffix_of(name)
    if suffix in CODE:
        return "code"
    if suffix in PROSE:
        return "scripts" if OTHER.search(f"/{name}") else "prose"
    return ""


def text_of(name: str, content: bytes) -> str:
    """The text of a file, unpacked and without its markup."""
    if name.endswith((".gz", ".dz")):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error, lzma.LZMAError):
            return ""
    text = content.decode("utf-8", "replace")
    suffix = suffix_of(name)
    if suffix in (".html", ".page"):
        text = html.unescape(MARKUP.sub("", text))
        text = re.sub(r"\n\s*\n\s*\n+", "\n\n", re.sub(r"[ \t]+\n", "\n", text))
    elif suffix == ".man":
        text = ROFF.sub("", text).replace("\\-", "-")
    return text.strip()


def cut(name: str, text: str, lengths: np.random.Generator) -> Iterator[Document]:
    """A file's documents: whole lines, of lengths as texts of the web have."""
    start = number = 0
    while start < len(text):
        length = int(np.clip(lengths.lognormal(np.log(MEDIAN), SIGMA), SHORTEST, LONGEST))
        end = text.find("\n", start + length) + 1 or len(text)
        piece, start = text[start:end].strip("\n"), end
        if len(piece) >= SHORTEST and not piece.isspace():
            digest = hashlib.sha1(piece.encode()).digest()
            yield Document(digest, f"{name}#{number}", piece)
            number += 1


def write(folder: Path, supply: dict[str, int], output: Path) -> None:
    """Take the kinds in turn, always the one that is furthest behind its share."""
    total = min(MEGABYTES * 10**6, sum(supply.values()))
    wanted = {kind: min(share * total, supply[kind]) for kind, share in SHARES.items()}
    wanted["code"] = min(supply["code"], total - wanted["prose"] - wanted["scripts"])
    queues = {kind: ordered(folder, kind) for kind in SHARES}
    taken, written = dict.fromkeys(SHARES, 0), 0
    with open(output, "wb") as file, tqdm(unit="B", unit_scale=True, disable=None) as bar:
        while queues and written < MEGABYTES * 10**6:
            kind = min(queues, key=lambda kind: taken[kind] / wanted[kind])
            if (document := next(queues[kind], None)) is None:
                del queues[kind]
                continue
            row = dict(id=document.digest.hex(), kind=kind, path=document.path, text=document.text)
            taken[kind] += len(document.text.encode())
            written += (size := file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n"))
            bar.update(size)


def ordered(folder: Path, kind: str) -> Iterator[Document]:
    """The documents of a kind by digest."""
    for bucket in range(BUCKETS):
        with open(folder / f"{kind}-{bucket}") as file:
            rows = sorted(json.loads(line) for line in file)
        yield from (Document(bytes.fromhex(digest), path, text) for digest, path, text in rows)
