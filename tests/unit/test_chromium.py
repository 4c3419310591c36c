"""A headless browser, and what it tells of a page."""

import pytest

from nemoflow import chromium as module
from nemoflow.errors import UserError
from small_browser import OVER_THE_EDGE, TOO_FAINT, WIDTH

HEAD = '<!DOCTYPE html><meta name="viewport" content="width=device-width"><title>x</title>'
BAD = """<body style="margin: 0"><div style="width: 900px; color: #bbb">wide</div>
<img src="http://127.0.0.1:9/nothing.png"><script>console.log("hello"); nothing()</script>"""


def test_a_bad_page_is_seen_through(chromium, tmp_path):
    file = tmp_path / "bad.html"
    file.write_text(HEAD + BAD)
    page = chromium.open(file, 390)
    assert "http://127.0.0.1:9/nothing.png" in page.requests
    assert any("hello" in told for told in page.complaints)
    assert any("Uncaught" in told for told in page.complaints)
    assert page.ask(WIDTH) == 900 and "wide" in page.ask(OVER_THE_EDGE)[0]
    assert "1.9" in page.ask(TOO_FAINT)[0]
    with pytest.raises(UserError, match="nothing"):
        page.ask("nothing()")
    with pytest.raises(UserError, match="refuses Page.nothing"):
        page.call("Page.nothing")
    page.close()


def test_light_dark_and_paper(chromium, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(f"{HEAD}<p>words")
    asked = "matchMedia('(prefers-color-scheme: dark)').matches"
    for dark in (False, True):
        page = chromium.open(file, 390, dark)
        assert page.ask(asked) is dark and page.ask("[innerWidth, devicePixelRatio]") == [390, 2]
        page.close()
    page = chromium.open(file)
    page.media("print")
    assert page.ask("matchMedia('print').matches") and page.paper().startswith(b"%PDF")
    assert page.picture(height=10).startswith(b"\x89PNG")
    page.close()


def test_a_file_that_is_not_there(chromium, tmp_path):
    with pytest.raises(UserError, match="no.html: Chromium cannot open it"):
        chromium.open(tmp_path / "no.html")


def test_without_a_browser_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(module, "PROGRAMS", ())
    with pytest.raises(UserError, match="apt-get install chromium"), module.browser():
        pass


def test_a_browser_that_does_not_live(monkeypatch):
    monkeypatch.setattr(module, "PROGRAMS", ("true",))
    with pytest.raises(UserError, match="Chromium has ended"), module.browser() as browser:
        browser.call("Browser.getVersion")
