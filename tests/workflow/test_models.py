"""Models made of other models: averages of checkpoints, adapters, and verdicts on conversions."""

from collections import Counter

AVERAGED = "extends: micro\nstart: eval\npretrain: {merge: {phase: phase2, windows: {last: 8}}}\n"
ADAPTED = "extends: micro\nstart: sft\nsft: {lora: {rank: 4, alpha: 8}}\n"


def test_an_average_is_made_of_the_kept_checkpoints_and_scored(copy):
    (copy.folder / "config/averaged.yaml").write_text(AVERAGED)
    made = "results/averaged/pretrain/phase2/merged/last.json"
    scores = "results/averaged/eval/merged/micro_facts.json"
    planned = Counter(merge=1, export=1, eval_task=2, eval=1)
    assert copy.planned("results/averaged/eval.json") == planned
    copy.build(scores)
    content = copy.json(made)
    last = copy.json("results/micro/pretrain/phase2/checkpoint.json")
    assert content["steps"] == [32, 36]
    assert (content["step"], content["tokens"]) == (36, last["tokens"])
    assert set(content["valid_loss"]) == {"last", "merged"}
    assert copy.json(scores)["n"] == 12
    assert copy.planned(scores) == Counter()
    text = AVERAGED.replace("last: 8", "last: 4")
    (copy.folder / "config/averaged.yaml").write_text(text)
    told = copy.run(*copy.snakemake("-n", "--", scores))
    assert told.returncode == 1 and "no checkpoint lies in the last 4 iterations" in told.stdout


def test_checkpoints_that_were_not_kept_are_named(copy):
    text = AVERAGED.replace("last: 8", "last: 12").replace(
        "merge:", "phases: {phase2: {options: {window: {iterations: 12}}}}, merge:"
    )
    (copy.folder / "config/averaged.yaml").write_text(text)
    done = copy.build("results/averaged/pretrain/phase2/merged/last.json", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert "no checkpoint of step 28 was kept (1 of 2 are in" in done.stdout


def test_adapters_are_trained_alone_and_merged_when_they_are_exported(copy):
    (copy.folder / "config/adapted.yaml").write_text(ADAPTED)
    model = "results/adapted/export/sft.json"
    assert copy.planned(model) == Counter(sft=1, export=1)
    copy.build(model)
    ours = {
        file["path"]: file["size"]
        for file in copy.json("results/adapted/sft/checkpoint.json")["files"]
    }
    assert "adapter_model.safetensors" in ours and "model.safetensors" not in ours
    base = copy.json("results/micro/export/pretrain.json")
    assert [file["path"] for file in copy.json(model)["files"]] == [
        f["path"] for f in base["files"]
    ]
    assert copy.json(model)["md5"] != base["md5"]
    assert "results/micro/pretrain/phase2/checkpoint.json" in copy.json(model)["inputs"]
    parity = copy.json("results/adapted/parity/sft.json")
    assert parity["verdict"] == "passed" and parity["values"] == "equal"
    assert parity["adapters"]["max_difference"] <= 1e-5


def test_every_conversion_has_a_verdict(built):
    for stage in ("pretrain", "sft", "rl.rlvr1", "rl"):
        found = built.json(f"results/micro/parity/{stage}.json")
        assert found["names"] == found["shapes"] == found["values"] == "equal"
        assert found["logits"]["cosine"] >= 0.99 and found["verdict"] == "passed"
