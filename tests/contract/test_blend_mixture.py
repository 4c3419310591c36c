"""What megatron-core draws from our blend.json: each corpus by its weight, each token as likely."""

import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from megatron.bridge.data.loaders import get_blend_and_blend_per_split
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

from indexed_writer import IndexedWriter
from nemoflow.blend import make_blend
from nemoflow.files import write_json

SAMPLES, SEQUENCE = 100_000, 32
WEIGHTS = {"web": 5.0, "math": 3.0, "law": 2.0}
TOKENS = {  # of each training shard
    "web": [1_500_000, 700_000, 250_000, 60_000, 90_000],
    "math": [200_000, 30_000, 110_000],
    "law": [25_000, 6_000],
}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Shards of three corpora of very different sizes, relative to the working directory."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("mixture"))
    made = {}
    for corpus, sizes in TOKENS.items():
        shards = [("train", size) for size in sizes] + [("valid", 3000), ("test", 3000)]
        made[corpus] = [
            write_shard(f"{corpus}/0000/{split}_{number:05d}", split, size)
            for number, (split, size) in enumerate(shards)
        ]
    yield made
    os.chdir(before)


def write_shard(prefix, split, size):
    """A shard of so many tokens, in documents of 50; what a corpus' manifest says of it."""
    with IndexedWriter(prefix) as writer:
        writer.add_many(np.arange(size) % 1000, np.full(size // 50, 50))
    return {"prefix": prefix, "split": split, "sequences": size // 50, "tokens": size}


def drawn(blend):
    """{prefix: samples} of the first 100,000 that megatron-core draws of a blend's train list."""
    write_json("blend.json", blend)
    _, blend_per_split = get_blend_and_blend_per_split(per_split_data_args_path="blend.json")
    config = GPTDatasetConfig(
        sequence_length=SEQUENCE,
        blend_per_split=blend_per_split,
        random_seed=1234,
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        path_to_cache="cache",
        tokenizer=SimpleNamespace(eod=0, pad=-1, vocab_size=1000, unique_identifiers={}),
    )
    sizes = [SAMPLES, 10, 10]
    train, *_ = BlendedMegatronDatasetBuilder(GPTDataset, sizes, lambda: True, config).build()
    prefixes = [dataset.dataset.path_prefix for dataset in train.datasets]
    counted = Counter(train.dataset_index[:SAMPLES].tolist())
    return {prefix: counted[number] for number, prefix in enumerate(prefixes)}


def misses(found):
    """How far each corpus is from its weight, as a fraction of it."""
    asked = {corpus: weight / sum(WEIGHTS.values()) for corpus, weight in WEIGHTS.items()}
    share: Counter[str] = Counter()
    for prefix, count in found.items():
        share[prefix.partition("/")[0]] += count / SAMPLES
    return {corpus: abs(share[corpus] / asked[corpus] - 1) for corpus in WEIGHTS}


def test_each_corpus_is_drawn_by_its_weight(corpora):
    blend = make_blend(WEIGHTS, corpora)
    found = drawn(blend)
    assert max(misses(found).values()) < 0.01, found
    for shards in corpora.values():  # inside a corpus, by tokens
        trained = [shard for shard in shards if shard["split"] == "train"]
        whole = sum(shard["tokens"] for shard in trained)
        count = sum(found[shard["prefix"]] for shard in trained)
        for shard in trained:
            expected = count * shard["tokens"] / whole
            assert abs(found[shard["prefix"]] - expected) <= 0.01 * expected + 2, shard

    # Nemotron's own recipes give every shard its corpus's whole weight, whatever it holds.
    equal = {
        split: [
            entry
            for corpus, shards in corpora.items()
            for shard in shards
            if shard["split"] == split
            for entry in (str(WEIGHTS[corpus]), shard["prefix"])
        ]
        for split in blend
    }
    missed = misses(drawn(equal))
    assert min(missed.values()) > 0.1 and max(missed.values()) > 0.3, missed
