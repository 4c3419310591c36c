"""What is not as its job made it is named, with what was built from it; nothing is repaired."""

import os
import shutil
from pathlib import Path

import pytest

import small_checkout
from nemoflow import __main__ as commands
from nemoflow import manifest, reading, storage
from nemoflow.errors import UserError
from nemoflow.files import read_json, sha256_of, write_json, write_whole
from nemoflow.progress import in_bytes
from nemoflow.verify import Verification
from small_results import Results, work_in

EVAL = "results/small/eval.json"
PHASE1 = "results/small/pretrain/phase1/checkpoint.json"
SFT = "results/small/sft/checkpoint.json"
CURVE = "results/small/sft/curve.csv"
SCORES = "results/small/eval/sft/sums.json"
PACKED, RENDERED = "results/data/packed/small.json", "results/data/rendered/small/chats.json"
MODEL = Path("results/small/sft/checkpoint/model.safetensors")
POINTER = Path(SFT).with_suffix(".dvc")


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A finished run, its records kept."""
    work_in(tmp_path, monkeypatch)
    made = Results()
    made.make()
    for path in [*Path("results").rglob("*.json"), *Path("results").rglob("*.csv")]:
        record = {"output": str(path), "sha256": sha256_of(path), "record": {}}
        write_json(f"provenance/records/{path}.json", record)
    return made


def told(*targets, with_bytes=True):
    return "\n".join(Verification(list(targets), with_bytes).lines())


def group(said, product):
    """The lines about one product."""
    lines = iter(said.splitlines())
    assert product in lines, said
    found = []
    for line in lines:
        if not line.startswith("  "):
            break
        found.append(line.strip())
    return found


def built_from(found):
    """The products in a group's last line."""
    assert found[-1].startswith("built from it: ")
    return found[-1].removeprefix("built from it: ").split(", ")


def edit(path, before, after):
    text = Path(path).read_text()
    assert before in text
    write_whole(path, text.replace(before, after, 1))


def test_a_finished_run_is_all_right(results):
    *notes, last = told().splitlines()
    assert last.startswith("29 products, ") and last.endswith(" read: all right")
    assert notes == [
        "never sealed: results/small/eval/pretrain/facts.json,"
        " results/small/eval/pretrain/sums.json, results/small/eval/rl/facts.json and 13 more"
    ]
    assert told(with_bytes=False).splitlines()[-1] == "29 products, no bytes read: all right"


def test_a_count_edited_by_hand_is_found_with_all_that_followed(results):
    edit(PACKED, '"rows": 31', '"rows": 32')
    found = group(told(with_bytes=False), PACKED)
    assert found[0].startswith(f"not what its job wrote (see provenance/builds/{PACKED}.json)")
    assert f"git checkout {PACKED} " in found[0] and f"rm {PACKED} " in found[0]
    after = built_from(found)
    assert {SFT, EVAL, SCORES, "results/small/rl/rlvr2/checkpoint.json"} <= set(after)
    assert not [path for path in after if "/pretrain" in path or "/data/" in path]
    assert any(line.startswith("was built from another") for line in group(told(), SFT))


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        (EVAL, "0.823", "0.923"),
        ("results/small/pretrain/phase2/blend.json", '"1.5"', '"2.5"'),
        (CURVE, "1e-3", "1e-4"),
    ],
)
def test_what_has_no_bytes_is_as_its_job_wrote_it(results, path, before, after):
    edit(path, before, after)
    assert group(told(with_bytes=False), path)[0].startswith("not what its job wrote")


def test_without_records_the_manifest_alone_must_hold(results):
    shutil.rmtree("provenance/records")
    Path(f"provenance/builds/{SFT}.json").unlink()
    note = "recorded neither in provenance/builds nor in provenance/records"
    assert f"{note}: {SFT}\n" in told()
    edit(SFT, '"stage": "sft"', '"stage": "rl"')
    assert "its spec is not the digest of its identity" in group(told(), SFT)[0]


def test_a_record_that_lags_is_no_fault_of_the_product(results):
    record = Path(f"provenance/records/{SFT}.json")
    write_json(record, {**read_json(record), "sha256": "0"})
    found = group(told(), SFT)
    assert len(found) == 1 and found[0].startswith(f"{record} is of another build")
    for torn in ("", "[]", "<<<<<<< HEAD"):
        record.write_text(torn)
        assert group(told(), SFT) == [f"{record} cannot be read; git checkout {record}"]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b'{"identity": {}, "inputs": []}'])
def test_a_file_that_is_no_manifest_stops_nothing(results, text):
    Path(SFT).write_bytes(text)
    write_whole(MODEL, "other")
    said = told()
    assert built_from(group(said, SFT))[0] == EVAL
    assert said.endswith(" 3 wrong")  # and two exports that were built from another


def test_missing_products_and_what_is_left_of_them(results):
    records = [f"provenance/{kind}/{SFT}.json" for kind in ("builds", "records")]
    Path(SFT).unlink()
    found = group(told(), SFT)
    assert f"there is no such file, though {records[0]}, {records[1]} tell of it" in found[0]
    assert f"git rm {records[0]} {records[1]}" in found[0]
    for record in records:
        Path(record).unlink()
    assert "though others were made from it" in group(told(), SFT)[0]
    assert "though others were made from it" in group(told(EVAL), SFT)[0]
    write_whole("results/small/export/old.dvc", "outs:\n")
    found = group(told("results/small/export"), "results/small/export/old.json")
    assert "there is no such file, though results/small/export/old.dvc tell of it" in found[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("md5: ", "md5: 0"), f"{POINTER} points to another build"),
        (lambda text: text[:20], f"{POINTER} points to another build"),
        (lambda text: "", f"{POINTER} cannot be read"),
        (lambda text: "a: {", f"{POINTER} cannot be read"),
        (lambda text: text + text.removeprefix("outs:\n"), f"{POINTER} cannot be read"),
        (
            lambda text: text.replace("path: checkpoint", "path: ../x"),
            f"{POINTER} contradicts the manifest: path ../x, not checkpoint",
        ),
        (
            lambda text: text.replace("nfiles: 1", "nfiles: 2").replace("size: ", "size: 9"),
            f"{POINTER} contradicts the manifest: size 917, not 17, nfiles 2, not 1",
        ),
    ],
)
def test_a_pointer_that_does_not_lead_to_the_product_is_found(results, change, said):
    manifest.write_pointer(SFT, manifest.read(SFT))
    POINTER.write_text(change(POINTER.read_text()))
    for with_bytes in (False, True):
        (found,) = group(told(with_bytes=with_bytes), SFT)
        assert found.startswith(said) and f"git checkout {POINTER}" in found
    shutil.rmtree(MODEL.parent)
    assert group(told(), SFT)[1] == "its bytes are not here either"


def test_each_file_that_differs_is_missing_or_too_many_is_named(results):
    for name in ("a", "b", "c/d"):
        write_whole(MODEL.parent / name, name)
    results.put(SFT, {"stage": "sft"}, [PACKED])
    shutil.rmtree("provenance/records")
    write_whole(MODEL.parent / "a", "A")
    (MODEL.parent / "c/d").unlink()
    write_whole(MODEL.parent / "e", "e")
    found = group(told(SFT), SFT)
    assert found[:3] == ["differs: a", "missing: c/d", "not of this build: e"]
    assert found[3] == f"rm {SFT} {manifest.last(SFT)}, then ask Snakemake for {SFT}"
    assert SCORES in built_from(found)
    manifest.write_pointer(SFT, manifest.read(SFT))
    assert group(told(SFT), SFT)[3] == f"rm -r {MODEL.parent}, then dvc pull {POINTER}"


def test_no_stamp_is_believed_and_a_wrong_one_is_corrected(results):
    age = MODEL.stat()
    write_whole(MODEL, "X" * age.st_size)
    os.utime(MODEL, ns=(age.st_atime_ns, age.st_mtime_ns))
    assert manifest.list_bytes(SFT) == manifest.read(SFT)["files"]
    assert group(told(), SFT)[0] == f"differs: {MODEL.name}"
    assert manifest.list_bytes(SFT) != manifest.read(SFT)["files"]


def test_a_file_that_cannot_be_read_is_named(results, monkeypatch):
    broken = "cannot be read: Input/output error"
    monkeypatch.setattr(reading.Reading, "md5_of", lambda self, path: broken)
    assert group(told(SFT), SFT)[0] == f"differs: {MODEL.name} ({broken})"


def test_bytes_that_are_not_here_must_be_somewhere(results):
    shutil.rmtree(MODEL.parent)
    for with_bytes in (False, True):
        (found,) = group(told(with_bytes=with_bytes), SFT)
        assert found.startswith("its bytes are not here, and were never sealed")
    manifest.write_pointer(SFT, manifest.read(SFT))
    assert f"not here, but sealed (dvc pull brings them): {SFT}\n" in told()
    assert told().endswith("all right")


def test_rendered_conversations_need_be_nowhere(results):
    write_whole(manifest.payload(RENDERED) / "spool.json", "{}")
    results.put(RENDERED, {"stage": "render"})
    shutil.rmtree(manifest.payload(RENDERED))
    Path(f"provenance/records/{RENDERED}.json").unlink()
    assert told("results/data/rendered").endswith("all right")


def test_targets_are_products_with_what_led_to_them_or_folders(results):
    def count(*targets):
        return int(told(*targets, with_bytes=False).splitlines()[-1].split()[0])

    assert count(PHASE1) == 4 == count("results/small/pretrain/phase1/checkpoint/")
    manifest.write_pointer(PHASE1, manifest.read(PHASE1))
    assert count(str(Path(PHASE1).with_suffix(".dvc"))) == 4
    assert count("results/small/eval") == 6 and count(EVAL) > 20
    assert count("./results/data", PHASE1) == 7
    assert count("results") == count(".") == count()
    with pytest.raises(UserError, match="results/small/stf/checkpoint.json.*did you mean"):
        told("results/small/stf/checkpoint.json")


def test_the_exit_code_tells(results, capsys):
    assert commands.main(["verify", "--no-bytes"]) is None
    assert capsys.readouterr().out.endswith("29 products, no bytes read: all right\n")
    Path(SFT).unlink()
    with pytest.raises(SystemExit) as exited:
        commands.main(["verify", SFT])
    assert exited.value.code == 1
    assert capsys.readouterr().out.endswith(" wrong\n")


@pytest.fixture
def sealed(tmp_path, monkeypatch):
    """A sealed product with its cache."""
    small_checkout.work_in(tmp_path, monkeypatch)
    return small_checkout.make(SFT, sealed=True)


def test_a_damaged_object_of_the_cache_is_named(sealed):
    store = storage.Storage()
    size = sum(storage.objects(sealed).values()) + sealed["size"]
    assert told().endswith(f"1 product, {in_bytes(size)} read: all right")
    model = next(file["md5"] for file in sealed["files"] if file["path"] == "model.bin")
    for md5 in (model, sealed["md5"]):
        store.cached(md5).chmod(0o644)
        store.cached(md5).write_text("x")
    place = ".dvc/cache/files/md5"
    assert group(told(), SFT) == [
        f"damaged in DVC's cache: model.bin; rm {place}/{model[:2]}/{model[2:]}",
        "damaged in DVC's cache: the list of files;"
        f" rm {place}/{sealed['md5'][:2]}/{sealed['md5'][2:]}",
    ]


def test_what_is_linked_with_the_cache_is_read_once(sealed):
    shutil.rmtree(".dvc/cache")
    with open(".dvc/config", "a") as config:
        config.write("[cache]\n    type = hardlink\n")
    storage.Storage().keep(manifest.payload(SFT), sealed)
    size = in_bytes(sum(storage.objects(sealed).values()))
    assert told().endswith(f"1 product, {size} read: all right")
