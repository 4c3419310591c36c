"""safetensors files, read without torch: whole ones are understood, others refused by name."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from nemoflow import shards
from nemoflow.errors import UserError
from small_models import SHARDS, huggingface, safetensors

names = st.text("abc.", min_size=1, max_size=8)
kinds = st.tuples(st.sampled_from(["F32", "BF16", "I64"]), st.lists(st.integers(0, 3), max_size=3))
files = st.dictionaries(names, kinds, max_size=4)
FIRST, SECOND = SHARDS


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("shards") / "x.safetensors"


@given(files)
def test_a_whole_file_holds_what_the_library_reads(place, tensors):
    safetensors(place, tensors)
    found, theirs = shards.read_file(place), load_file(place)
    assert {n: (t.dtype, t.size) for n, t in found.items()} == {
        name: (str(tensor.dtype).removeprefix("torch."), tensor.numel())
        for name, tensor in theirs.items()
    }


@given(files, st.data())
def test_a_file_cut_anywhere_is_refused(place, tensors, data):
    safetensors(place, tensors)
    whole = place.read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    place.write_bytes(whole[:cut])
    with pytest.raises(UserError, match="x.safetensors: (cut short: |no safetensors file: )"):
        shards.read_file(place)


@given(st.binary(max_size=80))
def test_any_other_bytes_are_refused(place, content):
    place.write_bytes(content)
    with pytest.raises(UserError, match=r"x.safetensors: (cut|no|longer)"):
        shards.read_file(place)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"data_offsets": [4, 12]}, "damaged: a begins at byte 4, not 0"),
        ({"data_offsets": [0, 4]}, "are not 4 bytes"),
        ({"data_offsets": [0]}, "no safetensors file"),
        ({"shape": ["x"]}, "no safetensors file"),
        ({"dtype": None}, "longer than it says"),  # an unknown type may have any size
    ],
)
def test_a_header_that_does_not_fit_the_data_is_refused(place, entry, said):
    told = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | entry
    raw = json.dumps({"a": told}).encode()
    place.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(16 if not told["dtype"] else 8))
    with pytest.raises(UserError, match=said):
        shards.read_file(place)


def listed(folder):
    return [path.name for path in folder.iterdir()]


def test_shards_are_one_model(tmp_path):
    folder = huggingface(tmp_path / "m")
    found = shards.read_all(folder, listed(folder))
    assert {name: tensor.size for name, tensor in found.items()} == {
        "backbone.embeddings.weight": 128, "lm_head.weight": 128, "b": 2,
    }  # fmt: skip


def remap(folder, change):
    path = folder / shards.INDEX
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / SECOND).unlink(), f"1 shards of {shards.INDEX} are missing: {SECOND}"),
        (lambda f: (f / FIRST).rename(f / SECOND), f"missing: {FIRST}"),
        (lambda f: (f / FIRST).write_bytes((f / SECOND).read_bytes()), "shards of two downloads"),
        (lambda f: (f / "x.safetensors").touch(), f"x.safetensors: not in {shards.INDEX}"),
        (lambda f: remap(f, lambda m: m.pop("b")), f"{SECOND}: has, against the index, b"),
        (lambda f: remap(f, lambda m: m.update(c=FIRST)), f"{FIRST}: has no c"),
        (lambda f: remap(f, lambda m: m.clear()), "its weight_map is empty"),
        (lambda f: (f / shards.INDEX).write_text("{}"), "no weight_map in it"),
        (lambda f: (f / shards.INDEX).unlink(), f"but no {shards.INDEX}"),
        (lambda f: os.truncate(f / SECOND, 200), f"{SECOND}: cut short: 200 of"),
    ],
)
def test_shards_that_are_no_model_are_refused(tmp_path, damage, said):
    folder = huggingface(tmp_path / "m")
    damage(folder)
    with pytest.raises(UserError) as error:
        shards.read_all(folder, listed(folder))
    assert said in str(error.value)
