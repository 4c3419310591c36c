"""A source as it was found."""

from pathlib import Path
from typing import NamedTuple

from nemoflow import corpus
from nemoflow.source_file import SourceFile


class Listed(NamedTuple):
    """A pinned source, and its files."""

    source: corpus.Source
    files: list[SourceFile]

    @classmethod
    def of(cls, source: corpus.Source, cache: Path) -> "Listed":
        """What a source is now."""
        pinned = corpus.pin(source)
        return cls(pinned, corpus.list_files(pinned, cache))

    @property
    def name(self) -> str:
        """The source in words: its kind, and what names it."""
        kind = corpus.kind_of(self.source)
        return f"{kind} {self.source[kind]}"
