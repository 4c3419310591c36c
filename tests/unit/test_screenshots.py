"""Pictures of a page."""

import struct

import pytest

from nemoflow import screenshots
from nemoflow.errors import UserError


def test_a_picture_of_each_kind(chromium, tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<meta name="viewport" content="width=device-width"><p>words')
    sizes = {}
    for path in screenshots.take(page, tmp_path / "pictures"):
        sizes[path.name] = struct.unpack(">II", path.read_bytes()[16:24])
    assert sizes == {
        "report-phone.png": (780, 2300),
        "report-desktop.png": (1280, 1640),
        "report-dark.png": (1280, 1640),
    }


def test_a_page_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="ask Snakemake"):
        screenshots.take(tmp_path / "report.html", tmp_path)
