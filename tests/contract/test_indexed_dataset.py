"""Our token shards and blends, read by megatron-core and Megatron-Bridge."""

import json
import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from megatron.bridge.data.loaders import get_blend_and_blend_per_split
from megatron.bridge.data.utils import pretrain_train_valid_test_datasets_provider
from megatron.bridge.training.config import GPTDatasetConfig
from megatron.core.datasets.gpt_dataset import GPTDataset
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

from indexed_writer import IndexedWriter
from nemoflow import tokenizer
from nemoflow.blend import SPLITS, make_blend
from nemoflow.corpus import list_files
from nemoflow.files import read_json, write_json
from nemoflow.indexed import IndexedReader
from nemoflow.plan import make_plan
from nemoflow.tokens import join_parts, tokenize_part

SAMPLES = {"train": 500, "valid": 40, "test": 40}
SEQUENCE = 64


def documents(seed: int, largest: int) -> list[np.ndarray]:
    """Token ids of documents of very different lengths, the extremes of the dtype among them."""
    generator = np.random.default_rng(seed)
    lengths = [1, 2, 1000, *generator.integers(1, 300, size=50)]
    texts = [generator.integers(0, largest, size=length, endpoint=True) for length in lengths]
    return [*texts, np.array([0, largest])]


@pytest.mark.parametrize("dtype", ["int32", "uint16", "int64"])
def test_bytes(dtype, tmp_path):
    """Byte for byte what megatron-core's own builder writes."""
    texts = documents(1, int(np.iinfo(dtype).max))
    with IndexedWriter(tmp_path / "ours", dtype) as writer:
        for text in texts:
            writer.add(text)
    builder = IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=np.dtype(dtype).type)
    for text in texts:
        builder.add_document(torch.from_numpy(text), [len(text)])
    builder.finalize(str(tmp_path / "theirs.idx"))
    for end in ("bin", "idx"):
        ours, theirs = (tmp_path / f"{name}.{end}" for name in ("ours", "theirs"))
        assert ours.read_bytes() == theirs.read_bytes(), end


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("dtype", ["int32", "uint16"])
def test_tokens(dtype, mmap, tmp_path):
    """megatron-core's reader gives back each document."""
    texts = documents(2, int(np.iinfo(dtype).max))
    with IndexedWriter(tmp_path / "shard", dtype) as writer:
        for text in texts:
            writer.add(text)
    dataset = IndexedDataset(str(tmp_path / "shard"), mmap=mmap)
    assert len(dataset) == len(texts)
    assert dataset.document_indices.tolist() == list(range(len(texts) + 1))
    for read, text in zip(dataset, texts, strict=True):
        np.testing.assert_array_equal(read, text)


def make_corpus(name: str, words: list[str], count: int, tokens: Path) -> list[dict]:
    """The shards of a corpus of random sentences, made in two parts of two shards by our code."""
    generator = np.random.default_rng(count)
    lengths = generator.integers(3, 80, size=count)
    rows = [{"text": " ".join(generator.choice(words, size=length))} for length in lengths]
    source = {"local": f"{name}.jsonl"}
    Path(source["local"]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    cache = Path("cache")
    plan = make_plan(list_files(source, cache), parts=2, shards_per_part=2)
    settings = {
        "corpus": name,
        "source": source,
        "text_field": "text",
        "dtype": "int32",
        "add_eos": True,
        "min_chars": None,
        "max_tokens": None,
        "splits": {"valid": 0.1, "test": 0.1},
        "seed": 1,
        "max_dropped": 0.0,
    }
    parts = [
        tokenize_part(plan, part, Path("tokenizer"), tokens / name / f"{part:04d}", settings, cache)
        for part in range(2)
    ]
    return join_parts(parts, name)["shards"]


def make_small_blend() -> None:
    """blend.json and its shards, relative to the working directory."""
    small, large = ["seven", "plus", "five", "is", "twelve"], [f"word{i}" for i in range(200)]
    Path("tokenizer").mkdir()
    tokenizer.train(small + large, 512, ["<|im_end|>"], "", "tokenizer")
    corpora = {
        "sums": make_corpus("sums", small, 100, Path("tokens")),
        "prose": make_corpus("prose", large, 400, Path("tokens")),
    }
    blend = make_blend({"sums": 3.0, "prose": 1.0}, corpora)
    write_json("blend.json", blend)


@pytest.fixture(scope="module", params=["small", "results"])
def blend(request, tmp_path_factory, results):
    """A blend.json, its prefixes relative to the working directory: a small one, the tiny run's."""
    before = Path.cwd()
    if request.param == "small":
        os.chdir(tmp_path_factory.mktemp("small"))
        make_small_blend()
        path = Path("blend.json")
    else:
        path = results / "super3-tiny/pretrain/phase1/blend.json"
        if not path.exists():
            pytest.skip(f"no finished tiny run: {path} is not there")
        os.chdir(results.parent)
    yield path
    os.chdir(before)


@pytest.fixture(scope="module")
def datasets(blend, tmp_path_factory):
    """Megatron-Bridge's own datasets of each split, as its pretraining builds them."""
    _, blend_per_split = get_blend_and_blend_per_split(per_split_data_args_path=str(blend))
    config = GPTDatasetConfig(
        seq_length=SEQUENCE,
        blend_per_split=blend_per_split,
        random_seed=1234,
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        path_to_cache=str(tmp_path_factory.mktemp("cache")),
    )
    config.tokenizer = SimpleNamespace(eod=0, pad=-1, vocab_size=1 << 20, unique_identifiers={})
    config.finalize()
    built = pretrain_train_valid_test_datasets_provider(list(SAMPLES.values()), config)
    return dict(zip(SPLITS, built, strict=True))


def text_of_sample(dataset: GPTDataset, reader: IndexedReader, index: int) -> np.ndarray:
    """The SEQUENCE + 1 ids of a sample, by megatron-core's indices and our reader."""
    index = dataset.shuffle_index[index]
    (first, start), (last, end) = dataset.sample_index[index : index + 2]
    texts = [reader.document(dataset.document_index[i]) for i in range(first, last + 1)]
    texts[-1] = texts[-1][: end + 1]
    texts[0] = texts[0][start:]
    return np.concatenate(texts)


@pytest.mark.parametrize("split", SPLITS)
def test_samples(split, datasets):
    """Every sample that a training run sees holds the tokens that we wrote."""
    dataset = datasets[split]
    readers = {}
    for index in range(SAMPLES[split]):
        shard = dataset.datasets[dataset.dataset_index[index]]
        prefix = shard.dataset.path_prefix
        reader = readers.setdefault(prefix, IndexedReader(prefix))
        text = text_of_sample(shard, reader, dataset.dataset_sample_index[index])
        np.testing.assert_array_equal(dataset[index]["tokens"], text[:-1])
        np.testing.assert_array_equal(dataset[index]["labels"], text[1:])


@pytest.mark.parametrize("split", SPLITS)
def test_mixture(split, datasets, blend):
    """Each shard gives the samples that its weight asks for, within one."""
    dataset, asked = datasets[split], read_json(blend)[split]
    weights = np.array(asked[0::2], dtype=float)
    count = SAMPLES[split]
    seen = Counter(dataset.dataset_index[:count].tolist())
    assert [shard.dataset.path_prefix for shard in dataset.datasets] == asked[1::2]
    for shard, share in enumerate(weights / weights.sum()):
        assert abs(seen[shard] - share * count) <= 1, asked[2 * shard + 1]
