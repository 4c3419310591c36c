"""The recipes' pretraining configs by Megatron-Bridge: they validate, and their model is ours."""

from typing import Any

import pytest
import torch
from megatron.bridge.recipes.nemotronh.h100 import nemotron_3_nano, nemotron_3_super
from megatron.bridge.training.config import ConfigContainer
from transformer_engine.pytorch import optimizers

from nemoflow.engines.local.hub import hub_config
from nemoflow.files import write_json

from pathlib import Path
from types import SimpleNamespace
import yaml

ROOT = Path(__file__).parents[2]
B200 = SimpleNamespace(name="NVIDIA B200", major=10, minor=0, total_memory=180 << 30, multi_processor_count=148)


class FusedAdam:
    """transformer-engine's optimizer: Megatron-Bridge asks which arguments it takes."""

    def __init__(
        self,
        store_param_remainders=False,
        master_weight_dtype=None,
        exp_avg_dtype=None,
        exp_avg_sq_dtype=None,
        use_decoupled_grad=False,
    ):
        pass


@pytest.fixture(autouse=True)
def cluster(monkeypatch):
    """What a job of 64 B200 GPUs would find."""
    monkeypatch.setenv("WORLD_SIZE", "64")
    monkeypatch.setattr(optimizers, "FusedAdam", FusedAdam)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: B200)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (10, 0))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)

def test_try(tmp_path, monkeypatch):
    m = yaml.safe_load((ROOT/"config/super3.yaml").read_text())["pretrain"]["model"]
    for k in ("scaling","bias_update_rate","aux_loss"): m["moe"][k]=float(m["moe"][k])
    m["moe"]["aux_loss"]=0; m.setdefault("ffn"); m.setdefault("norm_epsilon",1e-5)
    m["mamba"]={"conv":4,"chunk":128}|m["mamba"]
    write_json(tmp_path/"config.json", hub_config(m, "bfloat16"))
    monkeypatch.setattr(nemotron_3_super,"NEMOTRON_3_SUPER_HF_MODEL_ID",str(tmp_path))
    cfg = nemotron_3_super.nemotron_3_super_pretrain_16gpu_h100_bf16_config()
    import dataclasses
    for f in dataclasses.fields(cfg.model):
        if any(w in f.name for w in "mtp mamba moe hidden layers head kv query vocab init_method latent position epsilon rope ffn hybrid".split()): print(f.name, getattr(cfg.model,f.name))
    cfg.checkpoint.save="x"
    print(cfg.optimizer); print(cfg.scheduler); print(cfg.tokenizer)
    cfg.validate()
