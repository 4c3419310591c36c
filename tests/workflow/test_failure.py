"""A stage that fails after a change is not forgotten, and takes nothing finished with it."""

from collections import Counter

from workflow.checkout import TARGET

SFT = "schedule: {warmup_iterations: 2, end_iteration: 12}"
BROKEN = "schedule: {peak: 1e9, warmup_iterations: 2, end_iteration: 12}"
AFTER_SFT = Counter(rl=2, export=3, eval_task=4, eval=1)


def test_a_failed_change_is_tried_again_or_taken_back(copy):
    before = copy.products()
    copy.edit("config/micro.yaml", SFT, BROKEN)
    failed = copy.build(check=False)
    assert failed.returncode == 1
    assert "sft: stopped at step" in failed.stdout and "Traceback" not in failed.stdout
    assert copy.products() == before  # the finished manifests are put back, bytes untouched
    assert copy.planned() == Counter(sft=1) + AFTER_SFT

    again = copy.build(check=False)
    assert again.returncode == 1
    assert "The same settings meet the same wall" in again.stdout

    copy.edit("config/micro.yaml", BROKEN, SFT)
    assert copy.planned() == Counter()
    assert copy.products() == before

    copy.edit("config/micro.yaml", SFT, SFT.replace("{", "{peak: 5e-4, "))
    copy.build("results/micro/sft/checkpoint.json")
    assert copy.planned() == AFTER_SFT
    assert copy.json("results/micro/sft/checkpoint.json")["identity"]["schedule"]["peak"] == 5e-4


def test_a_damaged_input_is_refused_by_name(copy):
    model = copy.folder / "results/micro/pretrain/phase2/checkpoint/model.safetensors"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1  # of equal size, as another branch's checkpoint would be
    model.write_bytes(content)
    copy.edit("config/micro.yaml", SFT, SFT.replace("{", "{peak: 5e-4, "))
    done = copy.build(check=False)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert "results/micro/pretrain/phase2/checkpoint: the bytes are not those of" in done.stdout
    assert "model.safetensors" in done.stdout and "rebuild: rm" in done.stdout


def test_an_edited_manifest_is_refused(copy):
    path = copy.folder / "results/micro/pretrain/phase2/checkpoint.json"
    path.write_text(path.read_text().replace('"size": ', '"size": 1'))
    text = path.read_text().replace('"md5": "', '"md5": "0', 1)
    path.write_text(text)
    done = copy.build(TARGET, check=False)
    assert done.returncode == 1
    assert "edited by hand" in done.stdout
