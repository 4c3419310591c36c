"""What of a conversation goes into a prompt; that models answer is shown on a finished run."""

import pytest
from transformers import AutoTokenizer

import small_tokenizer
from nemoflow.engines.answering import Model
from nemoflow.errors import UserError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tokenizer with ChatML's template; nothing here needs weights."""
    folder = tmp_path_factory.mktemp("tokenizer")
    small_tokenizer.make(folder)
    made = Model.__new__(Model)
    made.tokenizer, made.context = AutoTokenizer.from_pretrained(folder), 64
    return made


def talk(*texts, system=None):
    roles = ["user", "assistant"] * len(texts)
    first = [{"role": "system", "content": system}] if system else []
    return first + [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]


def text_of(model, asked, room):
    tokens, dropped = model.prompt(asked, room)
    return model.tokenizer.decode(tokens[0]), dropped


def test_a_conversation_is_as_the_template_has_it(model):
    text, dropped = text_of(model, {"messages": talk("the fox", "dogs", "jumps")}, 100)
    assert dropped == 0
    said = "<|im_start|>user\nthe fox<|im_end|>\n<|im_start|>assistant\ndogs<|im_end|>\n"
    assert text == f"{said}<|im_start|>user\njumps<|im_end|>\n<|im_start|>assistant\n"


def test_the_oldest_turns_go_where_there_is_no_room(model):
    turns = talk("one", "two", "three", "four", "five", system="brief")
    kept = {"messages": talk("three", "four", "five", system="brief")}
    size = model.prompt(kept, 1000)[0].shape[1]
    assert text_of(model, {"messages": turns}, size) == (text_of(model, kept, size)[0], 1)
    text, dropped = text_of(model, {"messages": turns}, size - 1)
    assert dropped == 2 and "brief" in text and "five" in text and "three" not in text


def test_a_prompt_without_room_is_an_error_that_says_the_numbers(model):
    with pytest.raises(UserError, match=r"has \d+ tokens; 1 to 5 .* context of 64"):
        model.prompt({"messages": talk("the quick brown fox")}, 5)
    with pytest.raises(UserError, match="has 0 tokens"):
        model.prompt({"text": ""}, 5)


def test_plain_text_has_no_template(model):
    assert text_of(model, {"text": "the fox"}, 20) == ("the fox", 0)
