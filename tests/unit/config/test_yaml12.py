"""Scalars are those of YAML 1.2, keys stand once, every key knows its line."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemoflow.config import yaml12
from nemoflow.errors import UserError

SCALARS = {
    "1e-5": 1e-5, "1E5": 1e5, "+1.5e3": 1500.0, ".5": 0.5, "5.": 5.0, "-0.0": 0.0,
    "6.02e+23": 6.02e23, "7": 7, "-7": -7, "+7": 7, "017": 17, "0o17": 15, "0x1F": 31,
    "true": True, "False": False, "TRUE": True, "null": None, "~": None, "": None, "NULL": None,
    "on": "on", "off": "off", "yes": "yes", "No": "No", "y": "y", "tRUE": "tRUE",
    "12:30": "12:30", "190:20:30": "190:20:30", "2001-12-14": "2001-12-14", "1_000": "1_000",
    "0b11": "0b11", "1e": "1e", "e5": "e5", ".": ".", "0x": "0x", "1.2.3": "1.2.3",
    "<<": "<<", "=": "=", '"1e-5"': "1e-5", "'true'": "true", "!!str 12": "12", "!!int 12": 12,
    ".inf": math.inf, "-.INF": -math.inf, "+.inf": math.inf,
}  # fmt: skip

# YAML has no surrogate pairs; JSON's escapes of what lies above U+FFFF are such.
texts = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cc", "Cs"]), max_size=8)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
documents = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize("text", SCALARS)
def test_a_scalar_has_the_type_of_yaml_1_2(text):
    (value,), expected = yaml12.parse(f"key: {text}", "here")[0].values(), SCALARS[text]
    assert value == expected and type(value) is type(expected)


def test_not_a_number_is_a_float():
    assert math.isnan(yaml12.parse(".NaN", "here")[0])


@given(documents)
def test_all_json_is_yaml_and_means_the_same(document):
    value, _ = yaml12.parse(json.dumps(document), "here")
    assert repr(value) == repr(document)


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 3)), unique_by=lambda k: k[0])
)
def test_every_key_knows_its_line(keys):
    text, expected = "", {}
    for name, blank in keys:
        text += "# comment\n" * blank
        expected[(name,)] = text.count("\n") + 1
        text += f"{name}:\n"
        expected[(name, "inner")] = text.count("\n") + 1
        text += "  inner: 1\n"
    assert expected.items() <= yaml12.parse(text, "here")[1].items()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "here:3: a is set twice (first in line 1)"),
        ('a:\n  b: 1\n  "b": 2\n', "here:3: a.b is set twice (first in line 2)"),
        ("a: [{b: 1, b: 2}]", "here:1: a.0.b is set twice"),
        ("a: 1\nb: [1\n", "here:3: not readable as YAML"),
        ("a: 1\n--- \nb: 1\n", "not readable as YAML"),
        ("a: \x07", "not readable as YAML"),
        ("a: *b", "here:1: not readable as YAML"),
        (
            "a: 1\nb: {{ stem }}\n",
            "here:2: b: a key must be text; put quotes around text in braces",
        ),
        ("a: 1\n[b, c]: 2\n", "here:2: the file: a key must be text"),
        ("a: 1\nb: !!int many\n", "here:2: b: 'many' is no int"),
    ],
)
def test_what_cannot_be_read_names_its_line(text, said):
    with pytest.raises(UserError, match="here:") as error:
        yaml12.parse(text, "here")
    assert said in str(error.value)


def test_a_file_holds_a_mapping_in_utf8(tmp_path):
    path = tmp_path / "run.yaml"
    for content, said in ((b"- a\n", "not list"), (b"seven\n", "not str"), (b"a: \xff\n", "UTF-8")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=said):
            yaml12.read(path)
    path.write_bytes("\ufeffa: ü\n".encode())
    assert yaml12.read(path)[0] == {"a": "ü"}
    path.write_text("# only a comment\n")
    assert yaml12.read(path) == ({}, {})
