"""The device of the local engine: which one, how it is kept repeatable, whose Mamba it runs."""

import multiprocessing
import os
import sys
import warnings

import pytest
import torch

import local_jobs
import standin_device
from nemoflow import checkpoint, metrics
from nemoflow.engines import device
from nemoflow.engines.local.rewards import REWARDS
from nemoflow.errors import UserError


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that is there by PyTorch's word alone."""
    done = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(device, "be_repeatable", lambda: done.append(True))
    monkeypatch.delenv("NEMOFLOW_DEVICE", raising=False)
    return done


def test_a_gpu_is_taken_where_there_is_one_unless_the_cpu_is_asked_for(gpu, monkeypatch):
    assert device.choose().type == "cuda" and gpu == [True]
    monkeypatch.setenv("NEMOFLOW_DEVICE", "cpu")
    assert device.choose().type == "cpu" and gpu == [True]


def test_a_gpu_that_is_not_there_is_a_users_mistake(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("NEMOFLOW_DEVICE", raising=False)
    assert device.choose().type == "cpu"
    monkeypatch.setenv("NEMOFLOW_DEVICE", "cuda")
    with pytest.raises(UserError, match=r"NEMOFLOW_DEVICE=cuda: PyTorch .* finds no GPU here"):
        device.choose()


def repeatable():
    """Every switch of PyTorch that is set exists, and says so afterwards."""
    warnings.simplefilter("error")
    device.be_repeatable()
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.math_sdp_enabled() and not torch.backends.cuda.flash_sdp_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_cuda_is_made_repeatable():
    assert local_jobs.in_process(repeatable) == 0


def test_the_engine_keeps_to_pytorchs_mamba(gpu, monkeypatch, capsys):
    assert all(sys.modules[package] is None for package in device.KERNELS)
    device.tell("micro.sft", torch.device("cuda"))
    device.tell("micro.sft", torch.device("cpu"))
    told = "micro.sft: on NVIDIA H100 80GB HBM3, with PyTorch's own Mamba\n"
    assert capsys.readouterr().err == told


def test_kernels_that_are_used_are_told(gpu, monkeypatch, capsys):
    """As in lm-eval on a GPU, where transformers may take them."""
    for package in device.KERNELS:
        monkeypatch.delitem(sys.modules, package, raising=False)
    versions = {"mamba_ssm": "2.3.2", "causal_conv1d": "1.7.0"}
    monkeypatch.setattr(device.importlib.metadata, "version", versions.__getitem__)
    device.tell("lm-eval", torch.device("cuda"))
    assert capsys.readouterr().err.endswith(
        "with the kernels of mamba_ssm 2.3.2 and causal_conv1d 1.7.0\n"
    )


def settings(task):
    last = {"stop_iteration": 3} if task == "pretrain" else {"iterations": 3}
    return last | ({"kl": 0.1} if task == "rl" else {})


def by_length(row, text):
    return float(len(text) % 2 == 0)


def train_there(folder, inputs):
    """Three steps of every task, the last again after a resumption."""
    torch.set_num_threads(1)
    REWARDS["boxed_math"] = by_length
    standin_device.install()
    os.environ["NEMOFLOW_DEVICE"] = "standin"
    with standin_device.Mode():
        for task in local_jobs.TASKS:
            progress = folder / "there" / task
            options = local_jobs.OPTIONS | {"save_every": 2}
            job = local_jobs.job(task, progress, inputs[task], options=options, **settings(task))
            assert local_jobs.TASKS[task][0](job) == 0
            (progress / "final.json").unlink()
            checkpoint.remove(checkpoint.newest(progress))
            assert local_jobs.TASKS[task][0](job) == 0


def test_no_tensor_is_left_behind_on_the_cpu(inputs, tmp_path, monkeypatch):
    """On a device that refuses to mix, as CUDA does, each task trains as on the CPU.

    In a process of its own: autograd counts the devices when it is first used.
    """
    monkeypatch.setitem(REWARDS, "boxed_math", by_length)
    process = multiprocessing.get_context("spawn").Process(
        target=train_there, args=(tmp_path, inputs)
    )
    process.start()
    for task in local_jobs.TASKS:
        local_jobs.run_task(task, tmp_path / "here" / task, inputs, **settings(task))
    process.join()
    assert process.exitcode == 0
    for task in local_jobs.TASKS:
        ours, theirs = (
            metrics.read(tmp_path / name / task / "metrics.jsonl") for name in ("here", "there")
        )
        for one, other in zip(ours, theirs, strict=True):
            for key in one.keys() - set(metrics.TIMINGS):
                assert one[key] == pytest.approx(other[key], rel=1e-3, abs=1e-5), (task, key)
