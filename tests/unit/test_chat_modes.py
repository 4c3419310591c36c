"""Reasoning that is left out, of low effort, or cut: what a row then is."""

import numpy as np
import pytest

import small_encoders
from nemoflow.reasoning import BUDGET, CUT, LOW, OFF, Modes
from nemoflow.vocabulary import Folder
from small_chats import CHATML, REASONING, assistant, rendered, stretches, tool, user


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Folder(small_encoders.chat(tmp_path_factory.mktemp("chat")))


REASONED = {"messages": [user("a"), assistant("b", "one two three"), user("c"), assistant("d")]}


def test_rows_that_reason_are_rendered_in_their_mode(folder):
    """Those that do not are left as they are; what was done is noted."""
    told = {"off": 0.2, "low_effort": 0.2, "budget": {"share": 0.2, "tokens": [1, 2]}}
    plain = {"messages": [user("a"), assistant("b")]}
    made = rendered(folder, [REASONED, plain] * 100, CHATML, reasoning=told)
    modes = Modes(REASONING | told).of("a", np.arange(200))
    expected = {n: mode.name for n, mode in enumerate(modes) if mode.name and n % 2 == 0}
    assert {n: noted[0] for n, noted in made.noted.items()} == expected
    assert {*expected.values()} == {OFF, LOW, BUDGET}
    for noted in made.noted.values():
        assert noted[1:] == ([CUT] if noted[0] == BUDGET else [])


def test_off_is_as_if_nobody_had_reasoned(folder):
    made = rendered(folder, [REASONED], reasoning={"off": 1.0})
    plain = [user("a"), assistant("b"), user("c"), assistant("d")]
    same = rendered(folder, [{"messages": plain}])
    assert [s.ids.tolist() for s in made.kept[0]] == [s.ids.tolist() for s in same.kept[0]]
    assert made.noted == {0: [OFF]} and same.noted == {}


def test_low_effort_is_told_to_the_template(folder):
    made = rendered(folder, [REASONED], reasoning={"low_effort": 1.0})
    first, second = (stretches(folder, sequence) for sequence in made.kept[0])
    assert "a\n\n{reasoning effort: low}<|im_end|>" in first[0][0]
    assert first[1] == ("one two three\n</think>\nb<|im_end|>\n", 1)
    assert (
        "a<|im_end|>" in second[0][0] and "c\n\n{reasoning effort: low}<|im_end|>" in second[0][0]
    )


THOUGHTS = {
    "words": "the quick fox, 東京 👍🏽 हिन्दी\n" * 9,
    "faces": "👍🏽" * 40,
    "letter": "a" * 99,
}


@pytest.mark.parametrize("thought", THOUGHTS)
@pytest.mark.parametrize("budget", [1, 2, 3, 5, 7, 16])
def test_a_budget_cuts_reasoning_to_its_tokens_and_nothing_else(folder, thought, budget):
    thought = THOUGHTS[thought]
    turns = [user("a"), assistant("b " * 40, thought), tool("c " * 40), assistant("d", "short")]
    told = {"share": 1.0, "tokens": [budget, budget]}
    made = rendered(folder, [{"messages": turns}], reasoning={"budget": told})
    assert made.noted == {0: [BUDGET, CUT]}
    (sequence,) = [stretches(folder, sequence) for sequence in made.kept[0]]
    *cut, rest = sequence[1][0].split("\n</think>\n")
    cut = "".join(cut)
    assert rest == "b " * 40 + "<|im_end|>\n"
    assert thought.startswith(cut)
    encode = folder.huggingface.encode
    assert budget - 8 <= len(encode(cut, add_special_tokens=False)) <= budget
    assert f"a\n\nThinking budget: {budget} tokens.<|im_end|>" in sequence[0][0]
    (whole,) = rendered(folder, [{"messages": turns}]).kept[0]
    whole = stretches(folder, whole)
    assert sequence[2][0] == whole[2][0]
    assert whole[1][0] == f"{thought}\n</think>\n{rest}"


def test_a_budget_that_is_enough_is_told_and_cuts_nothing(folder):
    told = {"share": 1.0, "tokens": [500, 500]}
    made = rendered(folder, [REASONED], reasoning={"budget": told})
    assert made.noted == {0: [BUDGET]}
    text = "".join(text for text, _ in stretches(folder, made.kept[0][0]))
    bare = "".join(text for text, _ in stretches(folder, rendered(folder, [REASONED]).kept[0][0]))
    assert text.replace("\n\nThinking budget: 500 tokens.", "") == bare != text
