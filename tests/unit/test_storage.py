"""Objects lie in DVC's cache and on its remote under the names of their bytes, or are replaced."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

import small_checkout
from nemoflow import manifest, storage
from nemoflow.errors import UserError
from nemoflow.files import write_whole
from nemoflow.progress import in_bytes
from nemoflow.storage import Storage, batches, objects, refuse_secrets, without_login

SFT = "results/small/sft/checkpoint.json"


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    """A checkout to work in."""
    small_checkout.work_in(tmp_path, monkeypatch)


def far(store, md5):
    return Path(store.remote.oid_to_path(md5))


def model(content):
    return next(f["md5"] for f in content["files"] if f["path"] == "model.bin")


def overwrite(path, text):
    path.chmod(0o644)
    path.write_text(text)
    path.chmod(0o444)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/path", "s3://bucket/path"),
        ("ssh://me:word@host:22/path", "ssh://host:22/path"),
        ("https://me@host/path?sig=word#x", "https://host/path"),
        ("../far", "../far"),
    ],
)
def test_a_remote_is_shown_without_its_login(url, shown):
    assert without_login(url) == shown


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("secret_access_key", "word"),
        ("session_token", "word"),
        ("password", "word"),
        ("account_key", "word"),
        ("connection_string", "word"),
        ("url", "ssh://me:word@host/path"),
    ],
)
def test_a_secret_in_the_config_that_git_keeps_is_refused(key, value):
    with pytest.raises(UserError, match=f".dvc/config: {key} of remote far is a secret") as error:
        refuse_secrets({"remote": {"far": {key: value}}})
    assert "word" not in str(error.value).replace("password", "")


def test_what_is_no_secret_may_stand_in_it():
    refuse_secrets({})
    refuse_secrets({"remote": {"far": {"url": "ssh://me@host/path", "ask_password": True}}})


def test_batches_are_cut_by_bytes_and_keep_the_order():
    assert list(batches({"a": 3, "b": 3, "c": 9, "d": 1}, 6)) == [["a", "b"], ["c"], ["d"]]
    assert list(batches({}, 6)) == []


def test_where_dvc_cannot_work_the_way_out_is_told():
    shutil.rmtree(".git")
    with pytest.raises(UserError, match="not a git repository.*git init"):
        Storage()
    shutil.rmtree(".dvc")
    with pytest.raises(UserError, match="git checkout .dvc, or dvc init"):
        Storage()


def test_a_product_is_kept_under_the_names_of_its_bytes():
    content = small_checkout.make(SFT)
    store = Storage()
    store.keep(manifest.payload(SFT), content)
    assert list(objects(content))[-1] == content["md5"]  # the list, when all is there
    for md5, size in objects(content).items():
        status = store.cached(md5).stat()
        assert status.st_size == size and status.st_mode & 0o777 == 0o444
    assert store.damaged(objects(content)) == []
    ages = {md5: store.cached(md5).stat().st_mtime_ns for md5 in objects(content)}
    store.keep(manifest.payload(SFT), content)
    assert {md5: store.cached(md5).stat().st_mtime_ns for md5 in objects(content)} == ages


def test_damaged_objects_are_told_and_replaced():
    content = small_checkout.make(SFT, sealed=True)
    store = Storage()
    for md5 in (model(content), content["md5"]):
        overwrite(store.cached(md5), "x")
    assert store.damaged(objects(content)) == [model(content), content["md5"]]
    store.keep(manifest.payload(SFT), content)
    assert store.damaged(objects(content)) == []


def test_equal_files_are_kept_once():
    for name in ("a", "b"):
        write_whole(manifest.payload(SFT) / name, "x")
    manifest.write(SFT, {"stage": "sft"})
    content = manifest.read(SFT)
    Storage().keep(manifest.payload(SFT), content)
    assert len(objects(content)) == 2


@pytest.mark.parametrize("kind", ["hardlink", "copy"])
def test_a_hard_link_is_made_where_the_config_says_so(kind):
    content = small_checkout.make(SFT)
    with open(".dvc/config", "a") as config:
        config.write(f"[cache]\n    type = {kind}\n")
    store = Storage()
    store.keep(manifest.payload(SFT), content)
    linked = (manifest.payload(SFT) / "model.bin").samefile(store.cached(model(content)))
    assert linked == (kind == "hardlink")
    assert store.links(Path(SFT).parent) == [kind]


def test_the_remote_holds_what_is_there_in_full_length():
    content = small_checkout.make(SFT, pushed=True)
    store, wanted = Storage(), objects(content)
    assert store.on_remote(wanted) == set(wanted)
    short, folder = content["files"][0]["md5"], content["files"][1]["md5"]
    overwrite(far(store, short), "cut")
    far(store, folder).unlink()
    far(store, folder).mkdir()
    far(store, content["md5"]).unlink()
    assert store.on_remote(wanted) == set()


def test_what_does_not_arrive_is_told():
    content = small_checkout.make(SFT, sealed=True)
    store = Storage()
    far(store, model(content)).mkdir(parents=True)
    with pytest.raises(UserError, match=r"remote far \(.*far\): 1 objects did not arrive"):
        store.send(objects(content))
    far(store, model(content)).rmdir()
    store.send(objects(content))
    assert store.on_remote(objects(content)) == set(objects(content))


def test_an_error_is_told_without_the_secrets_of_the_remote():
    small_checkout.configure("    remote = far\n['remote \"far\"']\n    url = ssh://me@host/path\n")
    write_whole(".dvc/config.local", "['remote \"far\"']\n    password = word\n")
    error = OSError("cannot log in to ssh://me@host/path with word")
    said = Storage().scrubbed(error)
    assert said == "OSError: cannot log in to ssh://host/path with …"


def test_without_a_remote_the_command_is_told():
    small_checkout.configure("")
    with pytest.raises(UserError, match="dvc remote add -d storage URL"):
        _ = Storage().remote_name


@pytest.mark.parametrize("kind", ["copy", "hardlink"])
def test_what_does_not_fit_is_refused(monkeypatch, kind):
    content = small_checkout.make(SFT)
    copies = content["size"] if kind == "copy" else 0
    needed = in_bytes(sum(objects(content).values()) + copies)
    with open(".dvc/config", "a") as config:
        config.write(f"[cache]\n    type = {kind}\n")
    room = namedtuple("Room", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: room(2000))
    with pytest.raises(UserError, match=f"{needed} to pull, but the disk of .*2.00kB"):
        Storage().refuse_crowded({SFT: content})
    monkeypatch.setattr(shutil, "disk_usage", lambda place: room(5000))
    Storage().refuse_crowded({SFT: content})
    Storage().keep(manifest.payload(SFT), content)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: room(content["size"] + 50))
    Storage().refuse_crowded({SFT: content})  # what is in the cache is not fetched


def test_why_a_product_could_not_be_pulled():
    content = small_checkout.make(SFT, pushed=True)
    store = Storage()
    assert "cache has all of it" in store.why_absent(content)
    store.discard(objects(content))
    assert "holds wrong bytes for it, or cannot be read" in store.why_absent(content)
    far(store, model(content)).unlink()
    assert store.why_absent(content).endswith("lacks 1 of its objects")
    small_checkout.configure("")
    assert "DVC has no default remote" in Storage().why_absent(content)


def test_a_dvc_command_tells_its_error():
    assert storage.dvc("version") is None
    assert "nowhere.dvc' does not exist" in storage.dvc("pull", "nowhere.dvc")
