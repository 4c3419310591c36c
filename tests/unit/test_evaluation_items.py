"""The texts of a task's items, from a source of rows or from prompts of ours."""

import json

import pytest

from nemoflow.config.base import plain
from nemoflow.config.source import Source
from nemoflow.errors import UserError
from nemoflow.evaluation_items import make
from nemoflow.files import write_whole


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def made(tmp_path):
    """(facts, texts) of items in a file, or in the validation rows of prompts."""
    (tmp_path / "out").mkdir()

    def work(rows, text_field=None):
        write_whole(tmp_path / "validation.jsonl", lines(rows))
        source = plain(Source(local=str(tmp_path / "validation.jsonl")))
        told = {"source": source, "text_field": text_field} if text_field else None
        facts = make(told, tmp_path, tmp_path / "out", tmp_path / "cache")
        written = (tmp_path / "out/items.jsonl").read_text().splitlines()
        return facts, [json.loads(line)["text"] for line in written]

    return work


def test_a_field_is_the_text_of_an_item(made):
    facts, texts = made([{"a": {"q": "One?"}, "x": "not"}, {"a": {"q": ["Two", "2?"]}}], "a.q")
    assert texts == ["One?", "Two\n2?"] and facts["items"] == 2
    assert facts["source_files"] and "pinned" in facts


def test_rows_of_ours_are_what_a_person_reads_of_them(made):
    asked = {"responses_create_params": {"input": [{"role": "user", "content": "1+1?"}]}}
    facts, texts = made([{**asked, "expected_answer": "2"}, {"stem": "The owl", "choices": ["a"]}])
    assert texts == ["1+1?", "The owl\na"] and facts == {"items": 2}


def test_a_task_without_items_is_an_error(made):
    with pytest.raises(UserError, match="the task has no items"):
        made([])


def test_an_item_without_text_is_an_error(made):
    with pytest.raises(UserError, match=r"validation.jsonl .* an item has no text in q"):
        made([{"q": "One?"}, {"x": "Two?"}], "q")
