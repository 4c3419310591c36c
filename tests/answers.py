"""What the local engine's own model says to the prompts that lm-eval put to an export."""

import json
from functools import partial
from pathlib import Path

import torch
from transformers import AutoTokenizer

from nemoflow.engines.local.model import build
from nemoflow.engines.local.weights import load_weights
from nemoflow.files import read_json


def compare(
    results: Path, trained: str, stage: str, task: str, longest: int = 16
) -> list[tuple[bool, bool]]:
    """Of each sample of a task, whether answer and score are what the trained weights give.

    `results` is a run's folder, `trained` the stage's checkpoint in it. The answer is the text
    written greedily, of at most `longest` tokens, or the likelihoods of the choices within 1e-3.
    """
    model = read_json(results / trained / "state.json")["model"]
    network = build({"ffn": None, "mtp": None, **model}, 0).eval()
    load_weights(network, results / trained)
    tokenizer = AutoTokenizer.from_pretrained(results / "export" / stage)
    lines = (results / "eval" / stage / task / "samples.jsonl").read_text().splitlines()
    judge = partial(written, longest) if "generation" in json.loads(lines[0]) else rated
    with torch.no_grad():
        return [judge(network, tokenizer, json.loads(line)) for line in lines]


def written(longest, network, tokenizer, sample) -> tuple[bool, bool]:
    ids = tokenizer(sample["prompt"], return_tensors="pt", add_special_tokens=False)["input_ids"]
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    said = network.generate(ids, max_new_tokens=longest, do_sample=False, eos_token_id=stop)[0]
    text = tokenizer.decode(said[ids.shape[1] :], skip_special_tokens=True)
    right = f"\\boxed{{{sample['target']}}}" in text
    return text == sample["generation"], right == bool(sample["score"])


def rated(network, tokenizer, sample) -> tuple[bool, bool]:
    context = tokenizer(sample["prompt"], add_special_tokens=False)["input_ids"]
    found = []
    for choice in sample["doc"]["choices"]:
        whole = tokenizer(f"{sample['prompt']} {choice}", add_special_tokens=False)["input_ids"]
        scores = network(torch.tensor([whole[:-1]])).logits[0].log_softmax(-1)
        places = range(len(context) - 1, len(whole) - 1)
        found.append(sum(float(scores[place, whole[place + 1]]) for place in places))
    theirs = [likelihood for likelihood, _ in sample["response"]]
    same = all(abs(a - b) < 1e-3 for a, b in zip(found, theirs, strict=True))
    right = found.index(max(found)) == sample["target"]
    return same, right == bool(sample["score"])
