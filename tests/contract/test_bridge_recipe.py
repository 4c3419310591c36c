"""The adapter over the shapes that recipe functions have in the releases of Megatron-Bridge."""

from types import ModuleType, SimpleNamespace
from typing import TypedDict

import pytest
from bridge_jobs import CONFIG, asked
from megatron.bridge import AutoBridge
from typing_extensions import Unpack

from nemoflow.engines.megatron import recipe
from nemoflow.engines.megatron.settings import Setting
from nemoflow.errors import UserError

MODEL = CONFIG.run("super3").pretrain.model.model_dump()
KNOWN = {"seq_length": 4096, "peft": None, "packed_sequence": True}


class Keywords(TypedDict, total=False):
    """Some of what the functions of branch super-v3 take."""

    seq_length: int
    peft: str | None


def named(**user_kwargs: Unpack[Keywords]):
    return user_kwargs


def unnamed(**user_kwargs):
    return user_kwargs


def adapters(peft="lora"):
    return {"peft": peft}


def without():
    return {}


def required(model_size, tokens=None):
    return {}


def by_place(seq_length, /):
    return {}


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (named, {"seq_length": 4096, "peft": None}),
        (unnamed, KNOWN),
        (adapters, {"peft": None}),
        (without, {}),
    ],
)
def test_known_shapes(function, told):
    """Keywords as on super-v3, none as from 0.4 on: each is told what it takes of what we know."""
    assert recipe.call(function, KNOWN, MODEL) == told


@pytest.mark.parametrize(("function", "strange"), [(required, "model_size"), (by_place, "seq_len")])
def test_unknown_shapes(function, strange):
    """The error names the function, its arguments and the release."""
    with pytest.raises(UserError) as error:
        recipe.call(function, KNOWN, MODEL)
    for part in (recipe.release(), f"{function.__name__}(", f"nothing is known of {strange}"):
        assert part in str(error.value)


def test_a_keyword_that_is_refused():
    """A function that takes any keywords, and passes them on to one that does not."""

    def passes_on(**user_kwargs):
        return adapters(**user_kwargs)

    with pytest.raises(UserError, match="passes_on.*unexpected keyword argument"):
        recipe.call(passes_on, KNOWN, MODEL)


@pytest.mark.parametrize(
    ("there", "stage", "found"),
    [
        (["pretrain_config", "sft_config", "peft_config"], "pretrain.phase1", "pretrain_config"),
        (["pretrain_config", "sft_config", "peft_config"], "sft", "sft_config"),
        (["pretrain_config", "sft_config", "peft_config"], "sft with adapters", "peft_config"),
        (["pretrain_config", "finetune_config"], "sft", "finetune_config"),
        (["pretrain_config", "finetune_config"], "sft with adapters", "finetune_config"),
    ],
)
@pytest.mark.parametrize(("run", "family"), [("super3", "super"), ("nano3", "nano")])
def test_function_is_found(run, family, there, stage, found, monkeypatch):
    """By the name that the release gives it."""
    module = ModuleType("a_release")
    for name in there:
        setattr(module, f"nemotron_3_{family}_{name}", name)
    monkeypatch.setattr(recipe.importlib, "import_module", lambda _: module)
    stage = stage if run == "super3" else stage.replace("phase1", "phase2")
    assert recipe.recipe_of(asked(run, stage)) == found


def test_no_function_is_found(monkeypatch):
    """The error says what the release has instead."""
    module = ModuleType("a_release")
    module.nemotron_3_super_evaluate_config = without
    monkeypatch.setattr(recipe.importlib, "import_module", lambda _: module)
    with pytest.raises(UserError, match=r"none of \w+pretrain_config, only \w+evaluate_config"):
        recipe.recipe_of(asked("super3", "pretrain.phase1"))


def test_the_hub_is_not_asked():
    """Any model that a recipe function asks the hub for is ours; afterwards it is the hub's."""
    before = AutoBridge.__dict__["from_hf_pretrained"]
    with recipe.local_model(MODEL):
        bridge = AutoBridge.from_hf_pretrained("nvidia/anything", trust_remote_code=True)
    assert bridge.to_megatron_provider(load_weights=False).num_moe_experts == 512
    assert AutoBridge.__dict__["from_hf_pretrained"] is before


def test_fields_of_other_releases():
    """An older name is used; a field that no key of ours says may be missing, others may not."""
    job = asked("super3", "pretrain.phase1") | {"title": "pretrain.phase1"}
    old = SimpleNamespace(model=SimpleNamespace(hybrid_override_pattern="M"), comm_overlap=None)
    recipe.put(old, "model.hybrid_layer_pattern", Setting("ME", "model.pattern"), job)
    recipe.put(old, "model.moe_expert_capacity_factor", Setting(None), job)
    recipe.put(old, "model.mamba_chunk_size", Setting(128, "model.mamba.chunk"), job)
    assert vars(old.model) == {"hybrid_override_pattern": "ME"}
    with pytest.raises(UserError, match=r"pretrain\.model\.mamba\.chunk: .* has no field"):
        recipe.put(old, "model.mamba_chunk_size", Setting(64, "model.mamba.chunk"), job)
    with pytest.raises(UserError, match=r"phase1\.parallel\.expert: .*no field model\.expert"):
        expert = Setting(8, "parallel.expert")
        recipe.put(old, "model.expert_model_parallel_size", expert, job)
