"""What each stage makes of the micro run, held against golden.json: another product, a new version.

Data products are compared to the byte, for the pinned versions of libraries. What a CPU's rounding
touches is compared as far as CPUs agree: losses to a few hundredths, shapes, counts, file lists.
The report, a page for people, may change as it likes.
"""

import csv
import json
import sys
from pathlib import Path

import pytest

from nemoflow import files, manifest, specs

GOLDEN = Path(__file__).with_name("golden.json")
STAGES = [stage for stage in specs.VERSIONS if stage not in ("image", "report")]
FROM = {  # the stages whose products are a stage's inputs
    "tokens": ["plan", "tokenizer"],
    "corpus": ["tokens"],
    "blend": ["corpus"],
    "import_model": ["export"],
    "pretrain": ["blend", "corpus"],
    "render": ["tokenizer"],
    "pack": ["render"],
    "sft": ["pretrain", "pack"],
    "rl": ["export", "resolve"],
    "export": ["pretrain", "sft"],
    "eval_task": ["export", "resolve"],
    "merge": ["pretrain"],
    "eval_items": ["resolve"],
    "overlap": ["eval_items", "corpus", "pack", "resolve"],
    "contamination": ["overlap"],
}
DATA, RUN, GOLDEN_RUN = "results/data", "results/micro", "results/golden"
MANIFESTS = {
    "tokenizer": [f"{DATA}/tokenizers/micro.json"],
    "plan": [f"{DATA}/plans/micro-{name}.json" for name in ("equations", "facts")],
    "corpus": [f"{DATA}/tokens/micro/micro-{name}.json" for name in ("equations", "facts")],
    "pretrain": [f"{RUN}/pretrain/phase{i}/checkpoint.json" for i in (1, 2)],
    "render": [f"{DATA}/rendered/micro/{name}.json" for name in ("chats", "more-chats")],
    "pack": [f"{DATA}/packed/micro.json"],
    "sft": [f"{RUN}/sft/checkpoint.json"],
    "resolve": [f"{DATA}/prompts/micro-{name}.json" for name in ("facts", "problems")],
    "rl": [f"{RUN}/rl/rlvr{i}/checkpoint.json" for i in (1, 2)],
    "export": [f"{RUN}/export/{stage}.json" for stage in ("pretrain", "sft", "rl.rlvr1", "rl")],
    "eval_task": [f"{RUN}/eval/sft/micro_{name}.json" for name in ("arithmetic", "facts")],
    "merge": [f"{GOLDEN_RUN}/pretrain/phase2/merged/last.json"],
    "eval_items": [f"{DATA}/items/micro_{name}.json" for name in ("arithmetic", "facts")],
    "overlap": [
        f"{RUN}/contamination/{name}.json"
        for name in ("tokens/micro-facts", "packed/micro", "prompts/micro-problems")
    ],
}


def counted(path):
    """What a data stage's manifest says of its product, without what it was made from."""
    return {k: v for k, v in manifest.read(path).items() if k not in ("identity", "inputs", "spec")}


def trained(path, losses):
    """A training as far as CPUs agree; losses only where nothing is sampled."""
    rows = list(csv.DictReader(path.with_name("curve.csv").open()))
    told = {"columns": list(rows[0]), "steps": [int(row["step"]) for row in rows]}
    told["files"] = [file["path"] for file in manifest.read(path)["files"]]
    return told | ({"losses": [round(float(row["loss"]), 2) for row in rows]} if losses else {})


def exported(path):
    """Names, types and shapes of an exported model's tensors, its files and its config."""
    content, folder = manifest.read(path), manifest.payload(path)
    with open(folder / "model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    tensors = {name: [t["dtype"], t["shape"]] for name, t in header.items() if "dtype" in t}
    return {
        "files": [file["path"] for file in content["files"]],
        "tensors": files.digest(tensors),
        "config": files.digest(files.read_json(folder / "config.json")),
    }


def scored(path):
    """An evaluation without its answers: metric, number of items, files, what a sample tells."""
    content = manifest.read(path)
    samples = (manifest.payload(path) / "samples.jsonl").read_text().splitlines()
    told = {"metric": content["metric"], "n": content["n"], "keys": sorted(json.loads(samples[0]))}
    return told | {"files": [file["path"] for file in content["files"]]}


def imported(checkout):
    """What the import of an exported model says of it, without the digests of its weights."""
    model = manifest.read(checkout.folder / f"{RUN}/sft/checkpoint.json")["identity"]["model"]
    identity = {"stage": "import_model", "version": specs.VERSIONS["import_model"]}
    identity |= {"import": f"{RUN}/export/pretrain", "model": model}
    identity |= {"engine": "local"}
    options = {"readers": {"sft.engine": "local"}, "continues": None}
    told = {"stage": "import_model", "run": "x", "identity": identity, "options": options}
    files.write_json(checkout.folder / "golden/import.json", told)
    checkout.run(
        *(sys.executable, "workflow/scripts/import_model.py", "--spec", "golden/import.json"),
        *("--output", "golden/init.json", "--parity", "golden/parity.json", "--log", "golden/log"),
        check=True,
    )
    content = checkout.json("golden/init.json")
    paths = [file["path"] for file in content["files"]]
    return files.digest(identity), {"model": content["model"], "files": paths}


SEARCHED = """extends: micro
start: eval
pretrain: {merge: {phase: phase2, windows: {last: 8}}}
eval: {contamination: [pretrain, sft, rl]}
"""


def further(checkout):
    """Build what the micro run itself does not ask for: an average, and a search for items."""
    (checkout.folder / "config/golden.yaml").write_text(SEARCHED)
    merged = "results/golden/pretrain/phase2/merged/last.json"
    checkout.build(merged, "results/golden/contamination.json")


def gathered(checkout):
    """eval.json of hand-made scores: those of the run differ between CPUs."""
    identity = {"stage": "eval", "version": specs.VERSIONS["eval"], "stages": ["sft", "rl"]}
    identity |= {"tasks": ["a"], "published": {"rl": {"a": {"value": 0.5, "tolerance": 0.1}}}}
    told = {"stage": "eval", "run": "micro", "identity": identity, "options": {}}
    files.write_json(checkout.folder / "golden/spec.json", told)
    models, scores = [], []
    for i, stage in enumerate(identity["stages"]):
        (checkout.folder / f"golden/{stage}").mkdir(exist_ok=True)
        models.append(f"golden/{stage}.json")
        scores.append(f"golden/{stage}-a.json")
        manifest.write(checkout.folder / models[-1], {"stage": stage})
        facts = {"metric": "acc,none", "value": i / 2, "stderr": 0.25, "n": 4}
        manifest.write(checkout.folder / scores[-1], {"stage": stage}, **facts)
    checkout.run(
        *(sys.executable, "workflow/scripts/eval.py", "--spec", "golden/spec.json", "--run", "x"),
        *("--models", *models, "--scores", *scores, "--output", "golden/eval.json"),
        check=True,
    )
    return files.digest(identity), checkout.json("golden/eval.json")


def product(checkout, stage):
    """(digest of the specs, what the stage made) of a stage of the micro run."""
    if stage in ("eval", "import_model"):
        return gathered(checkout) if stage == "eval" else imported(checkout)
    paths = [checkout.folder / path for path in MANIFESTS.get(stage, [])]
    if stage == "blend":
        weights = [checkout.folder / f"{RUN}/pretrain/phase{i}/blend.json" for i in (1, 2)]
        used = sorted((checkout.folder / ".snakemake/specs").glob("micro-blend-*.json"))
        return files.digest([p.stem for p in used]), [files.sha256_of(path) for path in weights]
    if stage == "tokens":  # manifests of parts are temporary
        used = sorted((checkout.folder / ".snakemake/specs").glob("tokens-*.json"))
        folder = checkout.folder / f"{DATA}/tokens/micro/micro-facts/0000"
        listed = {name: told[2] for name, told in manifest.hash_folder(folder, {}).items()}
        return files.digest([p.stem for p in used]), listed
    spec = files.digest([manifest.read(path)["spec"] for path in paths])
    if stage == "contamination":
        told = checkout.json(f"{GOLDEN_RUN}/contamination.json")
        return "", files.digest(told)
    if stage == "merge":
        told = [manifest.read(path) for path in paths]
        return spec, [{"steps": t["steps"], "files": [f["path"] for f in t["files"]]} for t in told]
    if stage in ("pretrain", "sft", "rl"):
        return spec, [trained(path, losses=stage != "rl") for path in paths]
    if stage == "export":
        return spec, [exported(path) for path in paths]
    if stage == "eval_task":
        return spec, [scored(path) for path in paths]
    return spec, [files.digest(counted(path)) for path in paths]


def same(one, other):
    """Equality, in which losses may differ by a few hundredths."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            value == pytest.approx(other[key], abs=0.05) if key == "losses" else value == other[key]
            for key, value in one.items()
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.fixture(scope="module")
def made(built, tmp_path_factory):
    """What the stages make now: {stage: {version, spec, product}}."""
    checkout = built.copy(tmp_path_factory.mktemp("golden") / "checkout")
    further(checkout)
    products = {}
    for stage in STAGES:
        spec, content = product(checkout, stage)
        products[stage] = {"version": specs.VERSIONS[stage], "spec": spec, "product": content}
    return products


@pytest.fixture(scope="module")
def golden(made, request):
    """What they made when golden.json was written."""
    if request.config.getoption("--write-golden"):
        files.write_json(GOLDEN, made)
    return files.read_json(GOLDEN)


def changed(golden, made, stage):
    """Whether a stage's product, or one that it is made from, is another."""
    ours = stage not in golden or not same(golden[stage]["product"], made[stage]["product"])
    return ours or any(changed(golden, made, before) for before in FROM.get(stage, []))


def verdict(golden, made, stage):
    """What is to be done about a stage, or None."""
    ours, theirs = made[stage], golden.get(stage, {})
    again = "run pytest tests/rules --write-golden (only if intended)"
    if theirs.get("version") != ours["version"]:
        return f"stage {stage} has version {ours['version']} now: {again}"
    if same(theirs["product"], ours["product"]):
        return None
    if theirs["spec"] != ours["spec"]:
        return f"the micro run asks stage {stage} for something else now: {again}"
    if before := [b for b in FROM.get(stage, []) if changed(golden, made, b)]:
        return f"the product of stage {stage} follows that of {', '.join(before)}: see there"
    return (
        f"the product of stage {stage} changed: raise VERSIONS['{stage}'] in specs.py and {again}"
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_changed_product_has_a_new_version(golden, made, stage):
    if told := verdict(golden, made, stage):
        pytest.fail(told)


def test_the_stage_that_changed_is_blamed_and_not_those_after_it():
    golden = {stage: {"version": 1, "spec": "a", "product": ["x"]} for stage in STAGES}
    made = {stage: {**told} for stage, told in golden.items()}
    assert verdict(golden, made, "pack") is None
    for stage in ("render", "pack", "sft"):
        made[stage]["product"] = ["y"]
    assert "raise VERSIONS['render'] in specs.py and run pytest" in verdict(golden, made, "render")
    assert "pack follows that of render: see there" in verdict(golden, made, "pack")
    assert "sft follows that of pack" in verdict(golden, made, "sft")
    made["render"]["version"] = 2
    assert "has version 2 now" in verdict(golden, made, "render")
    made["eval"] |= {"spec": "b", "product": ["z"]}
    assert "asks stage eval for something else" in verdict(golden, made, "eval")


def test_losses_may_differ_by_a_rounding():
    one = [{"steps": [1], "losses": [2.01, 1.5]}]
    assert same(one, [{"steps": [1], "losses": [2.03, 1.49]}])
    assert not same(one, [{"steps": [1], "losses": [2.21, 1.5]}])
    assert not same(one, [{"steps": [2], "losses": [2.01, 1.5]}])
    assert not same(one, [{"steps": [1]}])


def test_golden_json_knows_every_stage_and_no_other(golden):
    assert sorted(golden) == sorted(STAGES)
