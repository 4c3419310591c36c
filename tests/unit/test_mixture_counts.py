"""What became of a mixture's rows: its sources in tables, gaps, what is to be built."""

import pytest

from nemoflow import manifest, specs
from nemoflow.config import Config
from nemoflow.mixture_counts import lines
from nemoflow.packing import write_packed
from nemoflow.products import PATHS
from nemoflow.tokens import described
from small_spool import numbered, spool

MIXTURE = """\
about: Mine
tokenizer: micro
template: chatml
pack_size: 16
pad_multiple: 2
valid_fraction: 0.2
sources:
  chats: {source: {local: a.jsonl}, weight: 3}
  sums: {source: {local: b.jsonl}, weight: 1}
  old: {source: {local: c.jsonl}, weight: 0}
gaps: {proofs: {weight: 0.5, why: not published}}
"""
PACKED = PATHS["pack"].format(mixture="mine")


@pytest.fixture
def told(config_folder, monkeypatch):
    """The lines about a mixture, with some overrides."""
    monkeypatch.chdir(config_folder.parent)
    (config_folder / "mixtures/mine.yaml").write_text(MIXTURE)

    def told(overrides=None):
        return list(lines(Config(config_folder, overrides=overrides), "mine"))

    return told


def render(folder, source, rows, dropped, reasoning):
    """The product of a source."""
    path = PATHS["render"].format(mixture="mine", source=source)
    spool(path.removesuffix(".json"), rows)
    lengths = [len(ids) for row in rows for ids, _ in row]
    manifest.write(
        path,
        specs.of(Config(folder), "render", {"mixture": "mine", "source": source}).identity,
        rows={"in": len(rows) + sum(dropped.values()), "kept": len(rows), "dropped": dropped},
        reasoning=reasoning,
        sequences=len(lengths),
        tokens=sum(lengths),
        trained_tokens=sum(sum(mask) for row in rows for _, mask in row),
        lengths=described({length: lengths.count(length) for length in lengths}),
    )
    return path.removesuffix(".json")


def pack(folder, spools):
    """The packed product of some sources."""
    spec = specs.of(Config(folder), "pack", {"mixture": "mine"}).identity
    facts = write_packed(spools, spec, PACKED.removesuffix(".json"))
    manifest.write(PACKED, spec, **facts)


def test_before_anything_is_built(told):
    assert told() == [
        "mine: Mine",
        "rows of 16 tokens, length - 1 of sequences padded to 2,"
        " longer sequences: truncate; weights are shares of rows",
        "",
        "source  weight   asked  of rows  of tokens    rows in  dropped  left out  train  valid",
        "chats        3  75.0 %        –          –  not built        –         –      –      –",
        "sums         1  25.0 %        –          –  not built        –         –      –      –",
        "old          0   0.0 %        –          –  not built        –         –      –      –",
        "",
        "not packed (weight 0): old",
        "gap: proofs: not published",
        "2 of 2 sources are not rendered",
        "not packed:",
        "  snakemake --profile profiles/local results/data/packed/mine.json",
    ]


def test_what_is_built(told, config_folder):
    long = [[([9] * 30, [0] * 20 + [1] * 10)]]
    chats = render(
        config_folder, "chats", numbered(30) + long, {"not_json": 2}, {"reasoning_off": 4}
    )
    sums = render(config_folder, "sums", numbered(30, first=1000, length=5), {}, {})
    only_rendered = told()
    assert "chats          31     150     70.0    4    4   30       30" in only_rendered
    assert not [line for line in only_rendered if "not rendered" in line]
    pack(config_folder, {"chats": chats, "sums": sums})
    said = told()
    # 24 and 24 rows to train on, 6 and 6 to validate on; of sums a third of the others' is taken.
    assert said[3:11] == [
        "source  weight   asked  of rows  of tokens    rows in  dropped  left out  train  valid",
        "chats        3  75.0 %   75.0 %     70.6 %         33        3         0     24      6",
        "sums         1  25.0 %   25.0 %     29.4 %         30        0        20      8      2",
        "old          0   0.0 %        –          –  not built        –         –      –      –",
        "",
        "source  sequences  tokens  trained  p50  p90  p99  longest",
        "chats          30     120     60.0    4    4   30       30",
        "sums           10    50.0     30.0    5    5    5        5",
    ]
    assert "chats: dropped: 2 not_json, 1 trained_tokens_cut_off" in said
    assert "chats: reasoning: 4 reasoning_off" in said
    assert "chats: sequences: 1 trained_tokens_cut_off" in said
    (train,) = (line for line in said if line.startswith("train: "))
    assert "32 sequences and 160 tokens (72 trained, 24 of padding), filled to" in train
    assert not [line for line in said if "snakemake" in line]


def test_what_is_out_of_date(told, config_folder):
    spools = [render(config_folder, name, numbered(9), {}, {}) for name in ("chats", "sums")]
    pack(config_folder, dict(zip(("chats", "sums"), spools, strict=True)))
    said = told("mixtures.mine.sources.chats.weight=2")
    assert "packed from another config, to be made again:" in said
    assert said[4].split()[1:] == ["2", "66.7", "%", "–", "–", "9", "0", "–", "–", "–"]
    said = told("mixtures.mine.sources.sums.used_in=mine")
    assert "rendered from another config, to be made again: sums" in said


def test_imported_rows(told, config_folder):
    text = "tokenizer: micro\nimport: packed\npack_size: 16\n"
    (config_folder / "mixtures/mine.yaml").write_text(text)
    assert told()[:3] == ["mine", "rows of 16 tokens, imported from packed", ""]
    counts = {"rows": 2, "sequences": 5, "tokens": 30, "trained_tokens": 9, "fill": 0.9375}
    spec = specs.of(Config(config_folder), "pack", {"mixture": "mine"}).identity
    manifest.write(PACKED, spec, sources={}, train=counts, valid=counts | {"rows": 1})
    assert told()[3:] == [
        "train: 2 rows of 5 sequences and 30 tokens (9 trained), filled to 93.75 %",
        "valid: 1 rows of 5 sequences and 30 tokens (9 trained), filled to 93.75 %",
    ]
