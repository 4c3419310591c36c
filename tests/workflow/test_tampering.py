"""One wrong byte, wherever it lies, is found before anything is built from it, and never pushed."""

import os
import shutil
from pathlib import Path

import pytest

from nemoflow import sealing, storage
from nemoflow.errors import UserError
from nemoflow.manifest import payload, read
from nemoflow.need import need, wrong_products
from tamper import (
    KINDS,
    LAST,
    SFT,
    cached,
    flip,
    flip_all,
    here,
    largest,
    refused,
    remote,
    remove,
    told,
)
from workflow.checkout import TARGET, Checkout

kinds = pytest.mark.parametrize("product", KINDS.values(), ids=KINDS)


def test_a_byte_changed_in_the_workspace_is_refused(checkout):
    flip_all(here)
    assert set(wrong_products({p: read(p) for p in KINDS.values()})) == set(KINDS.values())
    said = refused(SFT)
    assert f"{payload(SFT)}: the bytes are not those of {SFT}" in said
    assert "Can't remove the following unsaved files" in said and f"rm -r {payload(SFT)}" in said
    for product in KINDS.values():
        Path(product).with_suffix(".dvc").unlink()
        assert f"{payload(product)}: the bytes are not those of {product}" in refused(product)
        with pytest.raises(UserError, match=f"{payload(product)}: .*not sealed"):
            sealing.seal({product: read(product)})
    said = told()
    for product in KINDS.values():
        assert f"\n{product}\n  differs: {largest(product)['path']}\n" in f"\n{said}"
    assert said.endswith(f"{len(KINDS)} wrong")


def test_a_byte_changed_in_the_cache_is_replaced_from_the_remote(checkout, capsys):
    flip_all(cached)
    said = told()
    for product in KINDS.values():
        assert f"damaged in DVC's cache: {largest(product)['path']}; rm {cached(product)}" in said
    assert "differs" not in said
    remove(*KINDS.values())
    need(KINDS.values())
    said = capsys.readouterr().err
    for product in KINDS.values():
        assert f"{payload(product)}: DVC's cache holds wrong bytes of it; not used" in said
    store = storage.Storage()
    assert not store.damaged(largest(product)["md5"] for product in KINDS.values())


@pytest.mark.parametrize("check", [False, True], ids=["", "verify"])
def test_a_byte_changed_on_the_remote_is_refused(checkout, capsys, check):
    if check:
        checkout.dvc("remote", "modify", "storage", "verify", "true")
    flip_all(remote)
    shutil.rmtree(".dvc/cache")
    remove(*KINDS.values())
    said = refused(*KINDS.values())
    assert any(f"{payload(product)}: " in said for product in KINDS.values())
    assert "holds wrong bytes for it" in said and "nothing was built from it" in said
    if not check:
        said = capsys.readouterr().err
        for product in KINDS.values():
            assert f"{payload(product)}: DVC's remote holds wrong bytes of it; not used" in said


@pytest.mark.long
@pytest.mark.parametrize("check", [False, True], ids=["", "verify"])
@kinds
def test_of_one_product_a_byte_is_changed_on_the_remote(checkout, product, check):
    if check:
        checkout.dvc("remote", "modify", "storage", "verify", "true")
    flip(remote(product))
    flip(cached(product))
    remove(product)
    said = refused(product)
    assert f"{payload(product)}: " in said and "holds wrong bytes for it" in said


def test_the_list_of_files_is_the_manifests_and_no_other(checkout, tmp_path):
    md5 = read(SFT)["md5"]
    place = f"files/md5/{md5[:2]}/{md5[2:]}"
    for storage_folder in (Path(".dvc/cache"), Path("../remote")):
        path = storage_folder / place
        path.chmod(0o644)
        path.write_text(path.read_text().replace("config.json", "../../../../found.json"))
    assert "damaged in DVC's cache: the list of files" in told(SFT)
    remove(SFT)
    need([SFT])
    assert not list(tmp_path.rglob("found.json"))


EDITS = {
    "count": ('"step": 12', '"step": 13'),
    "identity": ('"iterations": 12', '"iterations": 13'),
    "md5": ('"md5": "', '"md5": "0'),
    "way out of the product": ('"path": "config.json"', '"path": "../config.json"'),
}


def test_manifests_and_pointers_changed_by_hand_are_refused(checkout):
    text, pointer = Path(SFT).read_text(), Path(SFT).with_suffix(".dvc")
    for before, after in EDITS.values():
        assert before in text
        Path(SFT).write_text(text.replace(before, after, 1))
        said = told(SFT, with_bytes=False)
        assert f"{SFT}\n  " in said and "edited by hand" in said and LAST in said
        with pytest.raises(UserError, match=f"{SFT}: .*edited by hand"):
            sealing.heavy([TARGET])
    for broken in ("", text[:100], "\udcff"):
        Path(SFT).write_bytes(broken.encode(errors="surrogateescape"))
        assert f"{SFT}: not JSON" in refused(SFT)
        with pytest.raises(UserError, match=SFT):
            sealing.heavy([TARGET])
    Path(SFT).write_text(text)
    remove(SFT)
    right, other = pointer.read_bytes(), Path(LAST).with_suffix(".dvc").read_bytes()
    for broken in (other, right[:20], b"", b"\xff", right.replace(b": checkpoint", b": ../other")):
        pointer.write_bytes(broken)
        assert f"{pointer} does not lead to them" in refused(SFT)
        assert f"{pointer} " in told(SFT, with_bytes=False)
    pointer.write_bytes(right)
    need([SFT])


def test_snakemake_builds_nothing_from_wrong_bytes(checkout):
    """One product whose remote bytes are wrong, one whose manifest was edited."""
    export, scores = KINDS["export"], "results/micro/eval/pretrain/micro_facts.json"
    flip(remote(export))
    cached(export).unlink()
    remove(export)
    forget(scores)
    packed = KINDS["packed"]
    checkout.edit(packed, '"rows": 285', '"rows": 287')
    done = checkout.run(*checkout.snakemake("--keep-going", "--", scores, SFT))
    assert done.returncode == 1 and "Traceback" not in done.stdout, done.stdout
    assert f"error: {payload(export)}: " in done.stdout
    assert f"error: {packed}: not what its job wrote" in done.stdout
    assert not Path(scores).exists()
    assert checkout.git("status", "--short", SFT) == ""  # put back as it was


def forget(product: str) -> None:
    """Let Snakemake make a product again."""
    for path in (Path(product), Path(product).with_name(f".{Path(product).name}.last")):
        path.unlink()


@pytest.fixture
def linked(checkout) -> Checkout:
    """The checkout with hard links between workspace and cache."""
    checkout.dvc("config", "cache.type", "hardlink,copy")
    shutil.rmtree(".dvc/cache")
    sealing.seal(sealing.heavy([TARGET]))
    assert here(SFT).samefile(cached(SFT))
    return checkout


def test_a_byte_written_through_a_hard_link_is_found_and_replaced(linked, capsys):
    flip(here(SFT))
    with pytest.raises(UserError, match=f"{payload(SFT)}: .*not sealed"):
        sealing.seal(sealing.heavy([TARGET]))
    said = told(SFT)
    assert f"differs: {largest(SFT)['path']}" in said and f"rm {cached(SFT)}" in said
    remove(SFT)
    need([SFT])
    assert "DVC's cache holds wrong bytes of it; not used" in capsys.readouterr().err
    assert not wrong_products({SFT: read(SFT)})


def test_what_was_written_through_a_hard_link_is_never_pushed(linked):
    """Not even with the file's age put back, which deceives the stamp."""
    age = here(SFT).stat()
    flip(here(SFT))
    os.utime(here(SFT), ns=(age.st_atime_ns, age.st_mtime_ns))
    need([SFT])
    shutil.rmtree("../remote")
    with pytest.raises(UserError, match=f"{SFT}: its bytes are not on the remote, and not here"):
        sealing.push(sealing.heavy([TARGET]))
    assert not remote(SFT).exists()


def test_only_verify_finds_a_byte_of_forged_age(checkout):
    age = here(SFT).stat()
    flip(here(SFT))
    os.utime(here(SFT), ns=(age.st_atime_ns, age.st_mtime_ns))
    need([SFT])
    assert f"{SFT}\n  differs: {largest(SFT)['path']}\n" in told(SFT)
    assert "the bytes are not those of" in refused(SFT)  # verify has corrected the stamp
