"""A checkpoint as a Hugging Face model folder, which lm-eval, vLLM and Megatron-Bridge read."""

import shutil
from pathlib import Path

import torch
from transformers import AutoTokenizer

from nemoflow import checkpoint
from nemoflow.engines.local.job import Job
from nemoflow.engines.local.weights import read_weights, save_weights
from nemoflow.errors import UserError
from nemoflow.hub import hub_config

KEPT_FP32 = "e_score_correction_bias"  # as transformers keeps it, whatever the dtype


def export(job: Job) -> int:
    """Write {progress}/final/: config.json, model.safetensors, tokenizer files; the exit code.

    `config`: dtype and model. `inputs`: checkpoint and tokenizer folders. Raises UserError when the
    tokenizer has ids that the model has not.
    """
    source, dtype, model = Path(job.inputs["checkpoint"]), job.config["dtype"], job.config["model"]
    tokenizer = AutoTokenizer.from_pretrained(job.inputs["tokenizer"])
    if len(tokenizer) > model["vocab_size"]:
        raise UserError(
            f"{job.inputs['tokenizer']}: {len(tokenizer)} tokens, but model.vocab_size is"
            f" {model['vocab_size']}; export with the tokenizer that the data were made with"
        )
    weights = {
        name: tensor if name.endswith(KEPT_FP32) else tensor.to(getattr(torch, dtype))
        for name, tensor in read_weights(source).items()
    }
    config = hub_config(model, dtype)
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        config[key] = getattr(tokenizer, key)
    final, folder = job.progress / "final", job.progress / ".final.tmp"
    for leftover in (final, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(job.inputs["tokenizer"], folder)
    save_weights(weights, config, folder)
    checkpoint.sync_tree(folder)
    folder.rename(final)
    return 0
