"""Bytes are believed only when they match; what is wrong is pulled, or refused by name."""

import os
import shutil
from pathlib import Path

import pytest

import small_checkout
from nemoflow import manifest, storage
from nemoflow import need as needing
from nemoflow.errors import UserError
from nemoflow.files import sha256_of, write_json, write_whole
from nemoflow.need import need, need_if_had, refuse_edited, ways_out, wrong_bytes

SFT, RL = "results/small/sft/checkpoint.json", "results/small/rl/rlvr/checkpoint.json"


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    """A checkout to work in."""
    small_checkout.work_in(tmp_path, monkeypatch)


@pytest.fixture
def product():
    """The manifest of two files, one below the other."""
    small_checkout.make(SFT)
    return SFT


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files that were read, in order."""
    names, real = [], manifest.md5_of

    def spy(path):
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(manifest, "md5_of", spy)
    return names


def model(product):
    return manifest.payload(product) / "model.bin"


def flip(path):
    """Change the first byte."""
    content = path.read_bytes()
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    path.chmod(mode)


def refused(*products):
    with pytest.raises(UserError) as error:
        need(products)
    return str(error.value)


def test_a_product_without_bytes_needs_none(tmp_path):
    manifest.write("results/plan.json", {"stage": "plan"}, parts=[])
    assert need(["results/plan.json"])[0]["parts"] == []


def test_unchanged_bytes_are_not_read_again(product, hashed):
    need([product])
    assert hashed == []


def test_a_touched_file_is_read_again_once(product, hashed):
    os.utime(model(product), (1, 1))
    need([product])
    need([product])
    assert hashed == ["model.bin"]


@pytest.mark.parametrize("stamp", [None, "", "[]", '{"model.bin": 3}'])
def test_a_lost_or_broken_stamp_costs_one_reading(product, hashed, stamp):
    manifest.stamp(product).unlink()
    if stamp is not None:
        manifest.stamp(product).write_text(stamp)
    need([product])
    need([product])
    assert sorted(hashed) == ["config.json", "model.bin"]


def test_a_flipped_byte_is_found(product):
    flip(model(product))
    said = refused(product)
    assert f"{manifest.payload(product)}: the bytes are not those of {product}" in said
    assert "(1 of 2 files, model.bin first)" in said
    assert f"rebuild: rm {product}" in said and "never sealed with DVC" in said


def test_only_a_full_reading_finds_a_flipped_byte_of_forged_age(product):
    age = model(product).stat()
    flip(model(product))
    os.utime(model(product), ns=(age.st_atime_ns, age.st_mtime_ns))
    content = need([product])[0]
    assert "model.bin first" in wrong_bytes(product, content, trust_stamp=False)
    assert "the bytes are not those" in refused(product)  # the stamp tells the truth now


def test_the_bytes_of_another_build_with_its_stamp_are_refused(product):
    """After a branch switch git has swapped the manifest, bytes and stamp are the other build's."""
    flip(model(product))
    manifest.list_bytes(product)
    assert "of another build" in refused(product)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shutil.rmtree, "2 of 2 files are missing (deep/config.json, …)"),
        (lambda folder: (folder / "model.bin").unlink(), "1 of 2 files are missing (model.bin, …)"),
        (lambda folder: (folder / "x").touch(), "holds 1 files that are not of this build (x, …)"),
        (lambda folder: (folder / "model.bin").write_bytes(b""), "(1 of 2 files, model.bin first)"),
    ],
)
def test_missing_foreign_and_cut_files_are_named(product, change, said):
    change(manifest.payload(product))
    assert said in refused(product)


def test_the_ways_out_depend_on_what_is_here(product):
    content = manifest.read(product)
    pointer = Path(product).with_suffix(".dvc")
    assert "never sealed with DVC" in ways_out(product, content)
    pointer.write_text("outs:\n- md5: 0123.dir\n  path: checkpoint\n")
    assert f"{pointer} does not lead to them" in ways_out(product, content)
    manifest.write_pointer(product, content)
    assert f"rm -r {manifest.payload(product)}, then dvc pull {pointer}" in ways_out(
        product, content
    )
    shutil.rmtree(manifest.payload(product))
    assert f"  then dvc pull {pointer}; or publish again" in ways_out(product, content)


def test_a_pointer_to_another_folder_is_none_of_the_products(product):
    content = manifest.read(product)
    manifest.write_pointer(product, content)
    assert needing.is_sealed(product, content)
    pointer = Path(product).with_suffix(".dvc")
    pointer.write_text(pointer.read_text().replace("path: checkpoint", "path: ../../elsewhere"))
    assert not needing.is_sealed(product, content)


@pytest.mark.parametrize("record", ["", "[]", "<<<<<<< HEAD", '{"sha256": "0"}'])
def test_a_manifest_with_a_broken_or_other_record_is_refused(product, record):
    write_json(f"provenance/builds/{product}.json", {"sha256": sha256_of(product)})
    refuse_edited([product])
    write_whole(f"provenance/builds/{product}.json", record)
    with pytest.raises(UserError, match=f"{product}: not what its job wrote"):
        refuse_edited([product])


def test_absent_bytes_are_pulled_and_read():
    small_checkout.make(SFT, pushed=True)
    shutil.rmtree(manifest.payload(SFT))
    shutil.rmtree(".dvc/cache")
    need([SFT])
    assert wrong_bytes(SFT, manifest.read(SFT), trust_stamp=False) is None


def test_what_a_killed_pull_left_is_removed():
    small_checkout.make(SFT, sealed=True)
    model(SFT).rename(model(SFT).with_name(".abcdefghij-_ABCDEFGH01.tmp"))
    own = model(SFT).with_name(".note.tmp")
    own.touch()
    assert own.name in refused(SFT)  # that is somebody's
    assert {path.name for path in model(SFT).parent.iterdir()} == {"deep", own.name}
    own.unlink()
    need([SFT])


def test_an_object_of_two_products_that_is_damaged_is_replaced_for_both(capsys):
    for product in (SFT, RL):
        write_whole(model(product), "the same weights")
        manifest.write(product, {"stage": "sft"})
        content, store = manifest.read(product), storage.Storage()
        store.keep(manifest.payload(product), content)
        store.send(storage.objects(content))
        manifest.write_pointer(product, content)
        shutil.rmtree(manifest.payload(product))
    shared = content["files"][0]["md5"]
    flip(store.cached(shared))
    need([SFT, RL])
    assert capsys.readouterr().err.count("DVC's cache holds wrong bytes of it; not used") == 2
    assert not store.damaged([shared])


def test_right_bytes_stay_when_the_cache_is_damaged():
    """Another file of the product is wrong: only what is wrong goes."""
    content = small_checkout.make(SFT, sealed=True)
    store, paths = storage.Storage(), {file["path"]: file["md5"] for file in content["files"]}
    for md5 in paths.values():
        flip(store.cached(md5))
    flip(model(SFT))
    assert needing.remove_damaged({SFT: content}, store) == set()
    assert not model(SFT).exists()
    assert (manifest.payload(SFT) / "deep/config.json").exists()
    assert not any(store.cached(md5).exists() for md5 in paths.values())


def test_what_is_nowhere_to_be_had_is_gone_without(capsys):
    small_checkout.make(SFT, sealed=True)
    shutil.rmtree(manifest.payload(SFT))
    shutil.rmtree(".dvc/cache")
    need_if_had([SFT])
    said = capsys.readouterr().err
    assert "going on without it" in said and "lacks 2 of its objects" in said
