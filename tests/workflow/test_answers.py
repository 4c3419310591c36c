"""lm-eval, which loads an export through plain transformers, hears what we trained to say."""

import pytest

import answers


@pytest.mark.parametrize("task", ["micro_arithmetic", "micro_facts"])
def test_an_export_answers_as_the_trained_weights_do(built, task):
    results = built.folder / "results/micro"
    found = answers.compare(results, "sft/checkpoint", "sft", task, longest=8)
    assert found and all(same and scored for same, scored in found)
