"""Scripts by hand on a finished run: what they make again is the same, to the byte."""

import sys

import pytest

from nemoflow import files, manifest


def spec_of(checkout, stage, product):
    """The spec in .snakemake/specs/ from which a product was built."""
    identity = manifest.read(checkout.folder / product)["identity"]
    (found,) = (checkout.folder / ".snakemake/specs").glob(
        f"*{stage}-{files.digest(identity)}.json"
    )
    return str(found.relative_to(checkout.folder))


@pytest.fixture(scope="module")
def trained(built, tmp_path_factory):
    """A copy of the micro run in which products are made again by hand."""
    return built.copy(tmp_path_factory.mktemp("trained") / "checkout")


def by_hand(checkout, stage, product, *arguments):
    """Make a product again, its manifest removed; what the script says."""
    path = spec_of(checkout, stage, product)
    (checkout.folder / product).unlink()
    script = f"workflow/scripts/{stage}.py"
    return checkout.run(sys.executable, script, "--spec", path, *arguments, check=True).stdout


RUN, DATA = "results/micro", "results/data"
TOKENS = [f"{DATA}/tokens/micro/{corpus}.json" for corpus in ("micro-equations", "micro-facts")]
AGAIN = {
    "pretrain": (
        f"{RUN}/pretrain/phase2/checkpoint.json",
        ["--blend", f"{RUN}/pretrain/phase2/blend.json", "--corpora", *TOKENS]
        + ["--init", f"{RUN}/pretrain/phase1/checkpoint.json"]
        + ["--checkpoint", f"{RUN}/pretrain/phase2/checkpoint.json"]
        + ["--curve", f"{RUN}/pretrain/phase2/curve.csv", "--log", "hand.log"],
    ),
    "rl": (
        f"{RUN}/rl/rlvr2/checkpoint.json",
        [
            "--init",
            f"{RUN}/export/rl.rlvr1.json",
            "--prompts",
            f"{DATA}/prompts/micro-problems.json",
        ]
        + ["--checkpoint", f"{RUN}/rl/rlvr2/checkpoint.json"]
        + ["--curve", f"{RUN}/rl/rlvr2/curve.csv", "--log", "hand.log"],
    ),
    "export": (
        f"{RUN}/export/sft.json",
        ["--checkpoint", f"{RUN}/sft/checkpoint.json"]
        + ["--tokenizer", f"{DATA}/tokenizers/micro.json"]
        + ["--output", f"{RUN}/export/sft.json", "--parity", f"{RUN}/parity/sft.json"]
        + ["--log", "hand.log"],
    ),
    "eval_task": (
        f"{RUN}/eval/sft/micro_facts.json",
        ["--model", f"{RUN}/export/sft.json", "--prompts", f"{DATA}/prompts/micro-facts.json"]
        + ["--output", f"{RUN}/eval/sft/micro_facts.json", "--log", "hand.log"],
    ),
}


@pytest.mark.parametrize("stage", AGAIN)
def test_a_product_made_again_by_hand_is_the_same(trained, stage):
    product, arguments = AGAIN[stage]
    before = (trained.folder / product).read_bytes()
    said = by_hand(trained, stage, product, *arguments)
    assert (trained.folder / product).read_bytes() == before
    assert ("trained before for this very spec" in said) == (stage in ("pretrain", "rl"))


def test_pretraining_names_a_blend_that_is_not_there(trained):
    product, arguments = AGAIN["pretrain"]
    given = ["none.json" if word.endswith("blend.json") else word for word in arguments]
    spec_path = spec_of(trained, "pretrain", product)
    done = trained.run(sys.executable, "workflow/scripts/pretrain.py", "--spec", spec_path, *given)
    assert done.returncode == 1 and "error: none.json: " in done.stdout
    assert "Traceback" not in done.stdout


def test_a_short_training_by_hand(trained):
    told = trained.json(spec_of(trained, "sft", f"{RUN}/sft/checkpoint.json"))
    told["identity"]["iterations"] = 2
    files.write_json(trained.folder / "two.json", told)
    done = trained.run(
        *(sys.executable, "workflow/scripts/sft.py", "--spec", "two.json"),
        *(
            "--init",
            f"{RUN}/pretrain/phase2/checkpoint.json",
            "--data",
            f"{DATA}/packed/micro.json",
        ),
        *("--checkpoint", "hand/checkpoint.json", "--curve", "hand/curve.csv", "--log", "hand/log"),
        check=True,
    )
    assert trained.json("hand/checkpoint.json")["step"] == 2
    assert (trained.folder / "hand/curve.csv").read_text().splitlines()[-1].startswith("2,")
    assert "loss" in done.stdout and "loss" in (trained.folder / "hand/log").read_text()
