"""A checkpoint as a Hugging Face model folder, which lm-eval, vLLM and Megatron-Bridge read."""

import shutil
from pathlib import Path

from nemoflow import checkpoint
from nemoflow.engines import hub_folder
from nemoflow.engines.local.job import Job
from nemoflow.engines.local.weights import read_weights, save_weights


def export(job: Job) -> int:
    """Write {progress}/final/: config.json, model.safetensors, tokenizer files; the exit code.

    `config`: dtype and model. `inputs`: checkpoint and tokenizer folders. Raises UserError when the
    tokenizer has ids that the model has not.
    """
    source, dtype, model = Path(job.inputs["checkpoint"]), job.config["dtype"], job.config["model"]
    config = hub_folder.config_of(model, dtype, job.inputs["tokenizer"])
    weights = dict(hub_folder.cast(read_weights(source).items(), dtype))
    final, folder = job.progress / "final", job.progress / ".final.tmp"
    for leftover in (final, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(job.inputs["tokenizer"], folder)
    save_weights(weights, config, folder)
    checkpoint.sync_tree(folder)
    folder.rename(final)
    return 0
