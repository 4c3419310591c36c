"""A server on loopback that answers as the Hugging Face hub does, as far as sources ask."""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

ROUTES = (
    (r"/api/(datasets|models)/(.+)/revision/([^/]+)", "revision"),
    (r"/api/(datasets|models)/(.+)/tree/([^/]+)", "tree"),
    (r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
    (r"/blobs/([0-9a-f]{64})", "blob"),
)
LARGE = 1000  # bytes; larger files are kept as LFS objects, behind a redirect


@dataclass
class Repository:
    """What a repository holds: its files by commit, and the commits that branches name."""

    files: dict[str, bytes]
    commit: str = "c" * 40
    gated: bool = False
    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)

    def commit_of(self, revision):
        """The commit of a branch, or the commit itself; None for anything else."""
        known = {"main": self.commit, **self.branches}
        return known.get(revision, revision if revision in known.values() else None)


class Hub(ThreadingHTTPServer):
    """Repositories by (datasets or models, name); whoever has `token` may read gated ones.

    `asked` lists (method, path, Range header). `cut` ends the next answers after so many bytes,
    `hold` keeps them there, `busy` is how many requests are first answered with 503.
    """

    daemon_threads = True
    page = 1000  # entries of a listing

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.asked, self.cut, self.busy = {}, [], [], 0
        self.token, self.hold = "hf_of-somebody", None
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, name, files, kind="datasets", **told):
        """Make a repository of {path: bytes or text}."""
        content = {path: c.encode() if isinstance(c, str) else c for path, c in files.items()}
        self.repositories[kind, name] = Repository(content, **told)
        return self.repositories[kind, name]

    def ranges(self):
        """The Range headers of what was downloaded, None where all was asked for."""
        return [
            asked for method, path, asked in self.asked if method == "GET" and "/api/" not in path
        ]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self):
        self.server.asked.append((self.command, self.path, self.headers.get("Range")))
        if self.server.busy:
            self.server.busy -= 1
            return self.answer(503)
        address = urlsplit(self.path)
        for pattern, name in ROUTES:
            if match := re.fullmatch(pattern, address.path):
                groups = [unquote(group or "models").rstrip("/") for group in match.groups()]
                return getattr(self, name)(*groups, **parse_qs(address.query))
        return self.answer(404)

    do_HEAD = do_GET

    def revision(self, kind, name, revision, **_):
        found = self.found(kind, name, revision)
        return found and self.json({"id": name, "sha": found[1], "tags": [], "siblings": []})

    def tree(self, kind, name, revision, cursor=("0",), **_):
        if not (found := self.found(kind, name, revision)):
            return
        files = found[0].files
        folders = {path.rpartition("/")[0] for path in files} - {""}
        entries = [{"type": "directory", "path": path, "oid": "0" * 40} for path in folders]
        entries += [entry(path, files[path]) for path in sorted(files)]
        start = int(cursor[0])
        end = start + self.server.page
        link = (
            f'<{self.server.url}{urlsplit(self.path).path}?recursive=true&cursor={end}>; rel="next"'
        )
        self.json(entries[start:end], {"Link": link} if end < len(entries) else {})

    def resolve(self, kind, name, revision, path, **_):
        if not (found := self.found(kind, name, revision)):
            return None
        repository, commit = found
        if repository.gated and not self.is_known():
            return self.refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo")
        if path not in repository.files:
            return self.refuse(404, "EntryNotFound")
        content = repository.files[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{entry(path, content)["oid"]}"'}
        if len(content) <= LARGE:
            return self.send(content, headers)
        sha256 = hashlib.sha256(content).hexdigest()
        headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        return self.answer(302, {**headers, "Location": f"{self.server.url}/blobs/{sha256}"})

    def blob(self, sha256):
        files = (c for r in self.server.repositories.values() for c in r.files.values())
        self.send(next(c for c in files if hashlib.sha256(c).hexdigest() == sha256), {})

    def found(self, kind, name, revision):
        """(repository, commit), or None after a refusal."""
        repository = self.server.repositories.get((kind, name))
        if repository is None or (repository.private and not self.is_known()):
            return self.refuse(401 if not self.is_known() else 404, "RepoNotFound")
        commit = repository.commit_of(revision)
        return (repository, commit) if commit else self.refuse(404, "RevisionNotFound")

    def is_known(self):
        return self.headers.get("Authorization") == f"Bearer {self.server.token}"

    def send(self, content, headers):
        """A file, or the range of it that is asked for; `cut` and `hold` break it off."""
        start, end, status = 0, len(content), 200
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(match[1]), min(int(match[2] or end) + 1, end)
            status, headers = (
                206,
                {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(content)}"},
            )
        part = content[start:end]
        self.answer(status, {**headers, "Accept-Ranges": "bytes"}, part)

    def json(self, value, headers=()):
        self.answer(
            200, {"Content-Type": "application/json", **dict(headers)}, json.dumps(value).encode()
        )

    def refuse(self, status, code):
        self.answer(status, {"X-Error-Code": code, "X-Error-Message": code})

    def answer(self, status, headers=None, body=b""):
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        is_file = "/api/" not in self.path and body
        if is_file and self.server.cut:
            body = body[: self.server.cut.pop(0)]
            self.close_connection = True
        self.wfile.write(body)
        self.wfile.flush()
        if is_file and self.close_connection and self.server.hold:
            self.server.hold.wait(120)

    def log_message(self, *_):
        pass


def entry(path, content):
    """What a listing says of a file."""
    told = {"type": "file", "path": path, "size": len(content)}
    blob = b"blob %d\0" % len(content) + content
    told["oid"] = hashlib.sha1(blob).hexdigest()
    if len(content) > LARGE:
        sha256 = hashlib.sha256(content).hexdigest()
        told["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
    return told
