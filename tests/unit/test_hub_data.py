"""Repositories of the hub, from a server on loopback: commits, listings, downloads, refusals."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

import hub_server
from nemoflow import hub_data, network
from nemoflow.errors import UserError

NAME, COMMIT = "nvidia/some-data", "c" * 40
LARGE = random.Random(1).randbytes(300_000)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = hub_server.Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(network, "WAITS", [0.0, 0.0])
    server.add(NAME, {"data/a.parquet": LARGE, "README.md": "about", ".gitattributes": ""})
    yield server
    server.shutdown()
    server.server_close()


def listed(hub, path="data/a.parquet"):
    return next(f for f in hub_data.list_repository(NAME, COMMIT) if f.path == path)


def test_a_branch_is_pinned_and_a_commit_is_not_asked_for(hub):
    assert hub_data.commit_of(NAME, "main") == hub_data.commit_of(NAME, None) == COMMIT
    hub.repositories["datasets", NAME].branches["v1.0/rc"] = "d" * 40
    assert hub_data.commit_of(NAME, "v1.0/rc") == "d" * 40
    asked = len(hub.asked)
    assert hub_data.commit_of(NAME, "e" * 40) == "e" * 40 and len(hub.asked) == asked


def test_a_listing_has_sizes_and_digests_over_all_its_pages(hub, monkeypatch):
    monkeypatch.setattr(hub, "page", 1)
    files = hub_data.list_repository(NAME, COMMIT)
    blob = hashlib.sha1(b"blob 5\0about").hexdigest()
    assert [(f.path, f.bytes, f.digest) for f in files] == [
        ("README.md", 5, f"git:{blob}"),
        ("data/a.parquet", len(LARGE), f"sha256:{hashlib.sha256(LARGE).hexdigest()}"),
    ]


def test_a_file_is_downloaded_once_and_checked(hub, tmp_path):
    for path, content in (("data/a.parquet", LARGE), ("README.md", b"about")):
        file = listed(hub, path)
        there = hub_data.download(file, NAME, COMMIT, tmp_path)
        assert there.read_bytes() == content
        asked = len(hub.asked)
        assert hub_data.download(file, NAME, "d" * 40, tmp_path) == there
        assert len(hub.asked) == asked  # the same bytes at another commit: nothing is asked
    there.write_bytes(b"abuot")
    assert hub_data.download(file, NAME, COMMIT, tmp_path).read_bytes() == b"about"


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.cut = [100_000, 50_000]
    there = hub_data.download(listed(hub), NAME, COMMIT, tmp_path)
    assert there.read_bytes() == LARGE
    assert hub.ranges()[::2] == [None, "bytes=100000-", "bytes=150000-"]  # and redirected


def test_a_download_that_was_killed_half_way_goes_on_there(hub, tmp_path, capfd):
    hub.cut, hub.hold = [150_000], threading.Event()
    file = listed(hub)
    code = (
        "from nemoflow import hub_data; from nemoflow.source_file import SourceFile;"
        f"hub_data.download({file!r}, {NAME!r}, {COMMIT!r}, {str(tmp_path)!r})"
    )
    job = subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ))
    give_up = time.monotonic() + 120
    while not (parts := [p for p in tmp_path.rglob("*.partial") if p.stat().st_size >= 131_072]):
        assert job.poll() is None and time.monotonic() < give_up
        time.sleep(0.02)
    job.send_signal(signal.SIGKILL)
    job.wait()
    hub.hold.set()
    got = parts[0].stat().st_size
    assert 0 < got < len(LARGE)
    there = hub_data.download(file, NAME, COMMIT, tmp_path)
    assert there.read_bytes() == LARGE
    assert hub.ranges()[-1] == f"bytes={got}-"
    assert "going on after" in capfd.readouterr().err
    assert not list(tmp_path.rglob("*.partial"))


def test_a_spoiled_part_is_fetched_again_whole(hub, tmp_path):
    file = listed(hub)
    there = hub_data.download(file, NAME, COMMIT, tmp_path)
    there.rename(part := there.with_name(f".{there.name}.partial"))
    part.write_bytes(b"x" * 1000)
    assert hub_data.download(file, NAME, COMMIT, tmp_path).read_bytes() == LARGE
    assert hub.ranges()[-2:] == [None] * 2  # and redirected


def test_bytes_that_are_not_the_listed_ones_are_refused(hub, tmp_path):
    file = listed(hub, "README.md")
    hub.repositories["datasets", NAME].files["README.md"] = b"abuot"
    with pytest.raises(
        UserError, match="README.md at cccccccccccc is not what the hub's list says"
    ):
        hub_data.download(file, NAME, COMMIT, tmp_path)
    assert not [path for path in tmp_path.rglob("README.md")]


@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_a_gated_repository_is_told_with_and_without_a_token(hub, tmp_path, monkeypatch, kind):
    hub.add("nvidia/gated", {"a.jsonl": "{}"}, f"{kind}s", gated=True)
    page = f"{hub.url}/{'datasets/' if kind == 'dataset' else ''}nvidia/gated"
    (file,) = hub_data.list_repository("nvidia/gated", COMMIT, kind)
    for token, who in (
        ("", "an account, and set HF_TOKEN"),
        ("hf_other", "the account of HF_TOKEN"),
    ):
        monkeypatch.setenv("HF_TOKEN", token)
        for call in (
            lambda: hub_data.check_access("nvidia/gated", COMMIT, "a.jsonl", kind),
            lambda: hub_data.download(file, "nvidia/gated", COMMIT, tmp_path, kind),
        ):
            with pytest.raises(UserError, match=f"is gated: accept its terms at {page} with {who}"):
                call()
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub_data.check_access("nvidia/gated", COMMIT, "a.jsonl", kind)
    assert hub_data.download(file, "nvidia/gated", COMMIT, tmp_path, kind).read_text() == "{}"


def test_what_is_not_there_is_told(hub, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="nvidia/some-data has no revision v9; the page .*commits"):
        hub_data.commit_of(NAME, "v9")
    with pytest.raises(UserError, match="has no revision eeee"):
        hub_data.list_repository(NAME, "e" * 40)
    with pytest.raises(UserError, match="no dataset nvidia/x at http.*or it is private: mend the"):
        hub_data.commit_of("nvidia/x", None)
    with pytest.raises(UserError, match="no model nvidia/some-data"):
        hub_data.commit_of(NAME, None, "model")
    hub.add("nvidia/private", {"a.jsonl": "{}"}, private=True)
    with pytest.raises(UserError, match="or it is private.*set HF_TOKEN"):
        hub_data.commit_of("nvidia/private", None)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert hub_data.commit_of("nvidia/private", None) == COMMIT


def test_a_busy_hub_is_asked_again_and_at_last_given_up(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    file = listed(hub)
    hub.busy = 2
    assert hub_data.commit_of(NAME, None) == COMMIT
    hub.busy = 1
    assert hub_data.download(file, NAME, COMMIT, tmp_path).read_bytes() == LARGE
    hub.busy = 99
    with pytest.raises(UserError, match="answers 503, again and again"):
        hub_data.commit_of(NAME, None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(UserError, match="cannot be reached for nvidia/some-data: .*local: DIR"):
        hub_data.commit_of(NAME, None)
