"""The model of a source of rows."""

from urllib.parse import urlsplit

from pydantic import Field, model_validator

from nemoflow.config.base import Count, Name, Positive, Strict

REPOSITORY = r"^[\w.-]+(/[\w.-]+)?$"
# The kinds of a source, and the keys that each has.
SOURCE_KEYS = {
    "builtin": ("seed", "count", "split"),
    "local": (),
    "hub": ("revision", "subset", "split"),
    "url": (),
}


class Source(Strict):
    """Where rows come from: built-in, local files, a Hugging Face data set, or an address.

    Files are .jsonl or .json (a JSON object on each line; also .gz and .zst) and .parquet.
    """

    builtin: Name | None = Field(None, description="a generator of nemoflow.builtin")
    seed: Count | None = Field(None, description="of a built-in source")
    count: Positive | None = Field(None, description="rows of a built-in source")
    local: str | None = Field(
        None,
        min_length=1,
        description="a file, a folder with all below it, or a glob (** = folders of any depth)",
    )
    hub: str | None = Field(
        None,
        pattern=REPOSITORY,
        description="a Hugging Face data set, organisation/name; HF_TOKEN opens a gated one",
    )
    revision: str | None = Field(
        None,
        description="of a hub source: a commit, tag or branch (null = main), which the plan pins"
        " to a commit",
    )
    subset: str | None = Field(
        None,
        description="of a hub source: the files in a folder of that name, or named so, alone or"
        " before a - or _",
    )
    split: str | None = Field(
        None,
        description="of a hub source: the files in whose path a name begins with that word,"
        " followed by -, / or a dot; of a built-in source train, or what the generator knows",
    )
    url: str | None = Field(
        None,
        description="any address that fsspec reads (s3://, gs://, https://): a file, a folder or a"
        " glob; credentials come from the environment (AWS_*, GOOGLE_APPLICATION_CREDENTIALS)",
    )

    @model_validator(mode="after")
    def one_kind(self) -> "Source":
        """Exactly one kind, with the keys of that kind only; no password in an address."""
        kinds = [kind for kind in SOURCE_KEYS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(f"say exactly one of {', '.join(SOURCE_KEYS)}")
        allowed = {kinds[0], *SOURCE_KEYS[kinds[0]]}
        if wrong := {key for key, value in self if value is not None} - allowed:
            raise ValueError(f"a {kinds[0]} source has no {', '.join(sorted(wrong))}")
        if self.builtin and (self.seed is None or self.count is None):
            raise ValueError("a built-in source needs seed and count")
        if self.url is not None:
            check_url(self.url)
        return self


def check_url(url: str) -> None:
    """ValueError for an address that is none, or that holds a secret."""
    if "://" not in url or url.startswith("file://"):
        raise ValueError(f"url {url}: an address begins with s3:// or the like; else say local")
    if url.startswith("hf://"):
        raise ValueError(f"url {url}: say hub, which pins the revision")
    if "@" in urlsplit(url).netloc:
        raise ValueError("url: no user or password in an address; set them in the environment")
