"""Sources at an address: an S3 server (moto) on loopback, and a plain web server."""

import functools
import gzip
import json
import logging
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import boto3
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from nemoflow import corpus, network, remote
from nemoflow.errors import UserError

ROWS = [{"text": f"row {i} " + "x" * (i % 50), "id": i} for i in range(4000)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


class Spied:
    """The server's application: notes (method, key, Range), and fails as often as `busy` says."""

    def __init__(self, app):
        self.app, self.asked, self.busy = app, [], 0

    def __call__(self, environ, start_response):
        asked = [environ.get(name) for name in ("REQUEST_METHOD", "PATH_INFO", "HTTP_RANGE")]
        self.asked.append(tuple(asked))
        if self.busy:
            self.busy -= 1
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        return self.app(environ, start_response)

    def ranges(self, key):
        """[(first, last byte)] of what was read of an object."""
        found = [r for method, path, r in self.asked if method == "GET" and path.endswith(key)]
        return [tuple(map(int, r.removeprefix("bytes=").split("-"))) for r in found if r]


@pytest.fixture(scope="module")
def s3():
    """A bucket with the same rows in every form; its keys and its endpoint in the environment."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    server._server.app = spied = Spied(server._server.app)
    address = "http://{}:{}".format(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        spied.client = boto3.client("s3")
        spied.client.create_bucket(Bucket="lake")
        pq.write_table(pa.Table.from_pylist(ROWS), table := pa.BufferOutputStream(),
                       row_group_size=500, compression="none", use_dictionary=False)  # fmt: skip
        for key, body in {
            "web/a.jsonl": LINES,
            "web/more/b.json.gz": gzip.compress(LINES),
            "web/c.parquet": table.getvalue().to_pybytes(),
            "web/README.md": b"about",
            "web/.hidden.jsonl": b"{",
        }.items():
            spied.client.put_object(Bucket="lake", Key=key, Body=body)
        yield spied
    server.stop()


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(network, "WAITS", [0.0, 0.0])


def read_all(url, cache, spans=lambda file: [None]):
    source = {"url": url}
    return {
        file.path: [
            row
            for span in spans(file)
            for _, row in corpus.read_rows(file, source, cache, span=span)
        ]
        for file in corpus.list_files(source, cache)
    }


def test_file_folder_and_glob_name_the_same_rows(s3, tmp_path):
    found = read_all("s3://lake/web", tmp_path)
    assert list(found) == ["a.jsonl", "c.parquet", "more/b.json.gz"]
    assert all(rows == ROWS for rows in found.values())
    for url in ("s3://lake/web/", "s3://lake/web/**/*.[jp]*"):
        assert [file.path for file in remote.list_remote(url)] == list(found)
    etag = s3.client.head_object(Bucket="lake", Key="web/a.jsonl")["ETag"].strip('"')
    (file,) = remote.list_remote("s3://lake/web/a.jsonl")
    assert (file.path, file.bytes, file.digest) == ("a.jsonl", len(LINES), f"etag:{etag}")
    assert not list(tmp_path.rglob("*"))  # nothing is kept


def test_spans_read_every_row_once(s3, tmp_path):
    def thirds(file):
        edges = [0, file.bytes // 3, file.bytes // 3 * 2, file.bytes]
        return [None] if file.compressed else list(zip(edges, edges[1:], strict=False))

    assert all(rows == ROWS for rows in read_all("s3://lake/web", tmp_path, thirds).values())


def test_a_row_group_is_read_by_its_own_range(s3, tmp_path):
    source = {"url": "s3://lake/web/c.parquet"}
    (file,) = corpus.list_files(source, tmp_path)
    span = (file.bytes // 2, file.bytes // 2 + file.bytes // 8)
    s3.asked.clear()
    found = list(corpus.read_rows(file, source, tmp_path, span=span))
    assert 0 < len(found) <= 1000 and [row for _, row in found] == [ROWS[n] for n, _ in found]
    read = s3.ranges("c.parquet")
    assert sum(last + 1 - first for first, last in read) < file.bytes // 8 * 2 + 2 * 65536
    assert len(read) <= 4  # the footer, and the columns that lie side by side


def test_a_read_asks_for_exactly_its_bytes(s3):
    (file,) = remote.list_remote("s3://lake/web/a.jsonl")
    s3.asked.clear()
    with remote.open_remote(file, "s3://lake/web/a.jsonl") as stored:
        stored.seek(1000)
        assert stored.read(500) == LINES[1000:1500]
        assert stored.tell() == 1500
        stored.seek(-10, 2)
        assert stored.read(100) == LINES[-10:] and stored.read(1) == b""
    assert s3.ranges("a.jsonl") == [(1000, 1499), (len(LINES) - 10, len(LINES) - 1)]


def test_an_object_that_changed_is_refused(s3, tmp_path):
    source = {"url": "s3://lake/changing.jsonl"}
    s3.client.put_object(Bucket="lake", Key="changing.jsonl", Body=LINES)
    (file,) = corpus.list_files(source, tmp_path)
    with corpus.opened(file, source, tmp_path) as stored:
        assert stored.read(10) == LINES[:10]
        s3.client.put_object(Bucket="lake", Key="changing.jsonl", Body=LINES[::-1])
        with pytest.raises(UserError, match=r"changing.jsonl.*changed"):
            stored.read(10)
    with pytest.raises(UserError, match=rf"{len(LINES)} bytes and etag.*{file.digest}.*changed"):
        corpus.checked(file, source, tmp_path)
    s3.client.delete_object(Bucket="lake", Key="changing.jsonl")
    with pytest.raises(UserError, match="changing.jsonl: there is no such file"):
        corpus.checked(file, source, tmp_path)


def test_a_store_that_fails_for_a_moment_is_asked_again(s3, tmp_path, monkeypatch):
    (file,) = remote.list_remote("s3://lake/web/a.jsonl")
    with remote.open_remote(file, "s3://lake/web/a.jsonl") as stored:
        real, failures = type(stored)._range, [OSError("reset"), OSError("reset")]

        def failing(self, start, end):
            if failures:
                raise failures.pop()
            return real(self, start, end)

        monkeypatch.setattr(type(stored), "_range", failing)
        assert stored.read(9) == LINES[:9]
        failures += [OSError("reset")] * 3
        with pytest.raises(UserError, match="a.jsonl: reset; run the same command again"):
            stored.read(9)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://lake/nothing", "lake/nothing: no such file, and no .jsonl.* there"),
        ("s3://lake/none.jsonl", "none.jsonl: there is no such file, or no such bucket"),
        ("s3://sea/web", "s3://sea/web: "),
        ("s3://lake/web/*", "README.md cannot be read; rows come from .*name the others"),
        ("gs://lake/web", r"gcsfs.*pip install gcsfs"),
        ("xyz://lake/web", "xyz"),
        ("s3://lake/**.jsonl", "can only be an entire path component"),
    ],
)
def test_addresses_that_cannot_be_listed(s3, url, message):
    with pytest.raises(UserError, match=message):
        remote.list_remote(url)


def test_refusals_speak_of_credentials(s3, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError("Access Denied")

    monkeypatch.setattr("s3fs.S3FileSystem.find", refused)
    with pytest.raises(
        UserError, match="Access Denied; put credentials into the env.*FSSPEC_S3_ANON"
    ):
        remote.list_remote("s3://lake/web")


def test_a_folder_in_memory_is_an_address_too(tmp_path):
    store = fsspec.filesystem("memory")
    store.pipe({"/lake/a.jsonl": LINES, "/lake/b.csv": b"text"})
    with pytest.raises(UserError, match="b.csv cannot be read"):
        remote.list_remote("memory://lake")
    store.rm("/lake/b.csv")
    assert read_all("memory://lake", tmp_path) == {"a.jsonl": ROWS}


def test_a_web_server_without_ranges_is_told(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINES)
    handler = functools.partial(Quiet, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/a.jsonl"
    (file,) = remote.list_remote(url)
    assert (file.path, file.bytes) == ("a.jsonl", len(LINES))
    stored = remote.open_remote(file, url)
    stored.seek(1000)
    with pytest.raises(UserError, match="range.*; download it, and name the copy"):
        stored.read(10)
    server.shutdown()
    server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
