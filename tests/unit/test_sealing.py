"""A pointer is written when its bytes are kept; what is pushed was read before."""

import os
import shutil
from pathlib import Path

import pytest

import small_checkout
from nemoflow import manifest, sealing, storage
from nemoflow.errors import UserError
from nemoflow.files import read_json, write_json, write_whole
from nemoflow.need import is_sealed
from small_results import Results

SFT, RL = "results/small/sft/checkpoint.json", "results/small/rl/rlvr/checkpoint.json"


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    """A checkout to work in."""
    small_checkout.work_in(tmp_path, monkeypatch)


def model(product):
    return manifest.payload(product) / "model.bin"


def pointer(product):
    return Path(product).with_suffix(".dvc")


def make(*products):
    return {product: small_checkout.make(product) for product in products}


def test_what_led_to_a_run_is_sealed_but_rendered_conversations():
    results = Results()
    eval_path, _, checkpoints, *_ = results.make()
    found = sealing.heavy([eval_path])
    assert {*checkpoints, *(f"results/small/export/{stage}.json" for stage in ("sft", "rl"))} <= (
        found.keys()
    )
    assert not [path for path in found if "rendered" in path or path.endswith("eval.json")]


def test_what_led_to_a_run_must_be_known_whole_and_unchanged():
    results = Results()
    eval_path, blends, checkpoints, packed, _ = results.make()
    record = Path(f"provenance/builds/{blends[0]}.json")
    told = record.read_bytes()
    record.unlink()
    with pytest.raises(UserError, match=f"{blends[0]}: what it was made from stands in {record}"):
        sealing.heavy([eval_path])
    record.write_bytes(told)
    text = Path(packed).read_text()
    for change in (Path(packed).unlink, lambda: Path(packed).write_text("")):
        change()
        with pytest.raises(UserError, match=packed):
            sealing.heavy([eval_path])
    Path(packed).write_text(text.replace('"rows": 31', '"rows": 32'))
    with pytest.raises(UserError, match=f"{packed}: not what its job wrote"):
        sealing.heavy([eval_path])
    Path(packed).write_text(text)
    assert checkpoints[0] in sealing.heavy([eval_path])


def test_a_pointer_is_written_once_its_bytes_are_kept(monkeypatch):
    contents = make(SFT)
    monkeypatch.setattr(storage.Storage, "keep", lambda self, payload, content: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sealing.seal(contents)
    assert not pointer(SFT).exists()
    monkeypatch.undo()


def test_sealing_again_writes_nothing():
    contents = make(SFT)
    sealing.seal(contents)
    assert is_sealed(SFT, contents[SFT])
    os.utime(pointer(SFT), (1, 1))
    sealing.seal(contents)
    assert pointer(SFT).stat().st_mtime == 1
    shutil.rmtree(manifest.payload(SFT))  # elsewhere they are
    shutil.rmtree(".dvc/cache")
    sealing.seal(contents)
    assert pointer(SFT).stat().st_mtime == 1


def test_a_pointer_of_another_product_is_replaced():
    contents = make(SFT, RL)
    sealing.seal(contents)
    for change in (pointer(RL).read_bytes(), pointer(SFT).read_bytes()[:30], b"\xff", b""):
        pointer(SFT).write_bytes(change)
        sealing.seal(contents)
        assert is_sealed(SFT, contents[SFT])


def test_wrong_bytes_are_not_sealed():
    contents = make(SFT, RL)
    model(RL).write_text("other")
    for sealed in (False, True):
        if sealed:
            manifest.write_pointer(RL, contents[RL])
        with pytest.raises(UserError, match=f"{manifest.payload(RL)}: .*not sealed"):
            sealing.seal(contents)
    shutil.rmtree(manifest.payload(RL))
    pointer(RL).unlink()
    with pytest.raises(UserError, match="2 of 2 files are missing.*not sealed"):
        sealing.seal(contents)
    assert is_sealed(SFT, contents[SFT])


def test_lists_of_files_are_sent_last_and_nothing_twice(monkeypatch):
    contents = make(SFT, RL)
    sealing.seal(contents)
    sent = []
    real = storage.Storage.send
    monkeypatch.setattr(
        storage.Storage, "send", lambda self, sizes: (sent.extend(sizes), real(self, sizes))
    )
    assert sealing.push(contents) == sum(
        sum(storage.objects(content).values()) for content in contents.values()
    )
    assert [md5.endswith(".dir") for md5 in sent] == [False] * 4 + [True] * 2
    assert sealing.push(contents) == 0


def damage(path):
    """Change a byte of an object, and nothing that tells of it."""
    age, content = path.stat(), path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    path.chmod(age.st_mode)
    os.utime(path, ns=(age.st_atime_ns, age.st_mtime_ns))


def test_a_damaged_object_is_replaced_before_it_is_sent():
    contents = make(SFT)
    sealing.seal(contents)
    store = storage.Storage()
    md5 = contents[SFT]["files"][0]["md5"]
    damage(store.cached(md5))
    sealing.push(contents)
    sent = Path(store.remote.oid_to_path(md5))
    assert manifest.md5_of(sent) == md5


def test_bytes_of_forged_age_are_read_before_they_replace_an_object():
    contents = make(SFT)
    damage(model(SFT))
    sealing.seal(contents)  # the stamp is believed
    with pytest.raises(UserError, match=f"{SFT}: its bytes are not on the remote, and not here"):
        sealing.push(contents)
    assert not Path("../far").exists()


def test_an_object_that_another_product_has_is_not_missed():
    """The first product's bytes are elsewhere, its weights are the second's too."""
    contents = {}
    for product in (RL, SFT):
        write_whole(model(product), "the same")
        write_whole(manifest.payload(product) / "config.json", product)
        manifest.write(product, {"stage": "sft"})
        contents[product] = manifest.read(product)
    sealing.seal(contents)
    sealing.push({RL: contents[RL]})
    shutil.rmtree(manifest.payload(RL))
    shutil.rmtree(".dvc/cache")
    store = storage.Storage()
    weights = next(f["md5"] for f in contents[RL]["files"] if f["path"] == "model.bin")
    Path(store.remote.oid_to_path(weights)).unlink()
    assert sealing.push(contents) > 0
    assert store.on_remote(storage.objects(contents[RL])) == set(storage.objects(contents[RL]))


def test_marks_that_a_pointer_contradicts_are_forgotten():
    contents = make(SFT)
    sealing.seal(contents)
    right, *wrong = (Path(f"results/small/.sealed/{name}") for name in "abcde")
    sealing.mark(str(right), contents)
    for marker, text in zip(wrong, ("", "{", "[]", '{"results/gone.json": "0.dir"}'), strict=True):
        write_whole(marker, text)
    sealing.forget_stale_marks()
    assert [path for path in Path("results/small/.sealed").iterdir()] == [right]
    write_json("results/small/publish", read_json(right))
    pointer(SFT).unlink()
    sealing.forget_stale_marks()
    assert not right.exists() and not Path("results/small/publish").exists()


def test_the_next_step_names_every_run_that_holds_a_product():
    contents = {"results/parent/sft/checkpoint.json": {}, "results/data/packed/chats.json": {}}
    said = sealing.next_step("child", 2048, contents)
    assert "child: 2 products published, 2.05kB sent" in said
    assert "results/child results/data results/parent" in said
