"""Jobs of the local engine on a micro model and a few kB of data, and processes that get killed."""

import hashlib
import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indexed_writer import IndexedWriter
from nemoflow.engines.local.export import export
from nemoflow.engines.local.grpo import PolicyOptimization, grpo
from nemoflow.engines.local.job import Job
from nemoflow.engines.local.pretrain import Pretraining, pretrain
from nemoflow.engines.local.sft import FineTuning, sft

TASKS = {
    "pretrain": (pretrain, Pretraining),
    "sft": (sft, FineTuning),
    "rl": (grpo, PolicyOptimization),
}
VOCABULARY = 300
MODEL = {
    "pattern": "M*E",
    "layers": 3,
    "hidden_size": 32,
    "vocab_size": VOCABULARY,
    "init_std": 0.02,
    "norm_epsilon": 1e-5,
    "max_positions": 128,
    "ffn": None,
    "attention": {"heads": 2, "kv_heads": 1, "head_dim": 16},
    "mamba": {"heads": 2, "head_dim": 16, "state": 8, "groups": 1, "conv": 4, "chunk": 16},
    "moe": {
        "experts": 4,
        "experts_per_token": 2,
        "ffn": 32,
        "shared_ffn": 32,
        "latent": 16,
        "scaling": 2.5,
        "bias_update_rate": 1e-3,
        "aux_loss": 0.0,
    },
    "mtp": {"pattern": "*E", "depths": 1, "loss_scale": 0.3},
}
OPTIMIZER = {"beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1, "clip": 1.0}
SCHEDULE = {
    "style": "wsd",
    "peak": 3e-3,
    "floor": 0.0,
    "warmup_iterations": 2,
    "decay_iterations": 5,
    "decay_style": "minus_sqrt",
    "end_iteration": 14,
}
BATCH = {"global": 4, "micro": 2, "sequence": 32}
VALIDATE = {"every": 5, "batches": 1}
OPTIONS = {"log_every": 2, "save_every": 3, "status_seconds": 60, "keep": 2}


def blend(folder, corpora=("news", "code"), length=40, documents=30):
    """blend.json over corpora of repeated counting documents; its path."""
    lists = {"train": [], "valid": [], "test": []}
    for number, corpus in enumerate(corpora):
        rng = np.random.default_rng(number)
        for split, count in (("train", documents), ("valid", 3)):
            prefix = folder / "tokens" / corpus / "0000" / f"{split}_00000"
            with IndexedWriter(prefix) as writer:
                for start in rng.integers(0, 200, count):
                    writer.add(np.arange(start, start + length) % 100 + 100 * number)
            lists[split] += ["1.0", str(prefix)]
    path = folder / "blend.json"
    path.write_text(json.dumps(lists))
    return str(path)


def packed(folder, rows=12):
    """Packed rows of two sub-sequences, of which the second half counts; the folder."""
    rng = np.random.default_rng(0)
    ids = [
        (np.arange(start, start + 24) % VOCABULARY).tolist() for start in rng.integers(0, 200, rows)
    ]
    mask = ([0] * 6 + [1] * 5 + [0]) * 2
    table = {
        "input_ids": pa.array(ids, pa.list_(pa.int32())),
        "loss_mask": pa.array([mask] * rows, pa.list_(pa.uint8())),
        "seq_start_id": pa.array([[0, 12]] * rows, pa.list_(pa.int32())),
    }
    for split in ("train", "valid"):
        (folder / "packed" / split).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table), folder / "packed" / split / "shard_000000.parquet")
    return str(folder / "packed")


def prompts(folder, agent="boxed_math", content="What is {a}+1?"):
    """A folder with train.jsonl of ten prompts."""
    rows = [
        {
            "responses_create_params": {
                "input": [{"role": "user", "content": content.format(a=a)}]
            },
            "agent_ref": {"type": "responses_api_agents", "name": agent},
            "expected_answer": str(a + 1),
        }
        for a in range(10)
    ]
    (folder / "prompts").mkdir(exist_ok=True)
    (folder / "prompts" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "prompts")


def job(task, progress, inputs, model=MODEL, options=OPTIONS, seed=7, **config):
    """A job with the micro settings of `task`, changed by `config`."""
    common = {"model": model, "optimizer": OPTIMIZER, "schedule": SCHEDULE}
    batches = common | {"batch": BATCH, "validate": VALIDATE, "spike": 3.0}
    settings = {
        "pretrain": batches | {"init": "random", "stop_iteration": 14},
        "sft": batches | {"iterations": 14},
        "rl": common
        | {
            "algorithm": "grpo",
            "iterations": 8,
            "prompts_per_step": 4,
            "generations_per_prompt": 4,
            "minibatches": 2,
            "generation": {"max_new_tokens": 4, "temperature": 1.0},
            "clip_low": 0.2,
            "clip_high": 0.28,
            "kl": 0.0,
        },
        "merge": batches | {"init": "random", "stop_iteration": 14},
        "import": {"model": model},
        "export": {"model": model, "dtype": "float32"},
    }[task]
    Path(progress).mkdir(parents=True, exist_ok=True)
    return Job(task, f"micro.{task}", settings | config, options, seed, inputs, Path(progress))


def inputs(folder, tokenizer):
    """The inputs of each task: data, a pretrained micro checkpoint and its export."""
    data = blend(folder)
    pretrain(job("pretrain", folder / "init", {"blend": data}, stop_iteration=2))
    init = str(folder / "init/step_0000002")
    export(job("export", folder / "export", {"checkpoint": init, "tokenizer": str(tokenizer)}))
    return {
        "pretrain": {"blend": data, "init": None},
        "sft": {"data": packed(folder), "init": init},
        "rl": {"prompts": prompts(folder), "init": str(folder / "export/final")},
    }


def run_task(task, progress, given, **config):
    """Run a task on its part of `inputs`; the exit code."""
    return TASKS[task][0](job(task, progress, given[task], **config))


def in_process(function, *arguments):
    """Run a function in a forked process; its exit code, negative for a signal."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def kill_self(*_, **__):
    """Die as by SIGKILL from outside."""
    os.kill(os.getpid(), signal.SIGKILL)


def digests(folder):
    """sha256 of every file under a folder, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
