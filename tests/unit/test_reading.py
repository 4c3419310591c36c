"""Every byte is read, once."""

import hashlib
import os

from nemoflow.reading import Reading


def test_hard_links_are_read_once(tmp_path):
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    first.write_bytes(b"x" * 5_000_000)
    os.link(first, second)
    other.write_bytes(b"y" * 10)
    with Reading([first, second, other]) as reading:
        assert reading.bar.total == 5_000_010
        found = reading.md5s([first, other]) | reading.md5s([second])
    assert found[first] == found[second] == hashlib.md5(first.read_bytes()).hexdigest()
    assert found[other] == hashlib.md5(b"y" * 10).hexdigest()
    assert reading.bytes == 5_000_010


def test_what_cannot_be_read_is_told(tmp_path):
    (tmp_path / "gone").touch()
    (tmp_path / "folder").mkdir()
    paths = [tmp_path / "gone", tmp_path / "folder"]
    with Reading(paths) as reading:
        paths[0].unlink()
        assert list(reading.md5s(paths).values()) == [
            "cannot be read: No such file or directory",
            "cannot be read: Is a directory",
        ]
