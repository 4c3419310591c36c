"""Jobs of the harness on a model of random weights, a few kB large."""

import json
import shutil

from small_models import MODEL
from small_tokenizer import WORDS

QUESTION = {"output_type": "generate_until", "doc_to_text": "{{question}}", "doc_to_target": "b"}
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": ["brown", "lazy fox", " 12"],
    "doc_to_target": 1,
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
ANSWER = {
    **QUESTION,
    "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 5},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


def model(folder, tokenizer):
    """A Hugging Face folder of random weights with a tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from nemoflow.engines.hub_folder import config_of

    shutil.copytree(tokenizer, folder)
    told = config_of({**MODEL, "vocab_size": 300, "max_positions": 128}, "float32", str(tokenizer))
    (folder / "config.json").write_text(json.dumps(told))
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() > 1:  # far from uniform: each prompt has an answer of its own
                weight.mul_(20)
    made.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(told))
    return folder


def items(folder, count=6, name="items"):
    """The rows of a task."""
    path = folder / f"{name}.jsonl"
    rows = [{"question": f"the quick fox jumps over {WORDS[place]}"} for place in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def job(harness, items, model, backend="hf", metric=None, **told):
    """A job as training.score writes it; `told` may hold the endpoint."""
    found = "acc,none" if harness is CHOICE else "exact_match,none"
    task = {"harness": harness, "metric": metric or found, "fewshot": 0, "chat": False}
    task |= {key: told.pop(key) for key in ("fewshot", "chat", "generation") if key in told}
    made = {
        **{"task": task, "items": items, "model": str(model), "backend": backend},
        **{"batch_size": 4, "machine": {"gpus": 0}, **told},
    }
    return json.loads(json.dumps(made))


def files(folder, tmp_path):
    """Task files as lm-eval's own: tasks `one` and `two`, their group `both`, their tag `pair`."""
    folder.mkdir()
    for name, count, choice in (("one", 2, 0), ("two", 6, 2)):
        told = {**CHOICE, "task": name, "tag": ["pair"], "doc_to_target": choice}
        told |= {"dataset_path": "json", "test_split": "test"}
        told["dataset_kwargs"] = {"data_files": {"test": items(tmp_path, count, name)}}
        (folder / f"{name}.yaml").write_text(json.dumps(told))
    mean = [{"metric": "acc", "weight_by_size": True}]
    told = {"group": "both", "task": ["one", "two"], "aggregate_metric_list": mean}
    (folder / "both.yaml").write_text(json.dumps(told))
    return folder
