"""Chromium for tests, installed with apt where this machine lets us; and what to ask of a page."""

import os
import shutil
import subprocess

from nemoflow.chromium import program

# Elements that reach over the right edge of the page, but for what scrolls inside its box.
OVER_THE_EDGE = """
[...document.querySelectorAll("body *")]
  .filter(one => !one.closest(".scroll, svg, pre"))
  .filter(one => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(one => one.outerHTML.slice(0, 80))
"""
# Text with less contrast than WCAG 2.2 asks of small text (1.4.3: 4.5 to 1).
TOO_FAINT = """
(() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => numbers(colour).slice(0, 3)
    .map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = one => {
    for (; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (numbers(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = new Set();
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || !one.checkVisibility()) continue;
    const style = getComputedStyle(one);
    const ink = light(one.closest("svg") ? style.fill : style.color), paper = light(behind(one));
    const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (contrast < 4.5) found.add(`${one.outerHTML.slice(0, 60)} ${contrast.toFixed(2)}`);
  }
  return [...found];
})()
"""
WIDTH = "document.documentElement.scrollWidth"


def install() -> str:
    """Install Chromium where there is none; the reason where that cannot be."""
    if program():
        return ""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return "no Chromium here, and no right or no apt-get to install it"
    command = ["apt-get", "--quiet", "--option", "DPkg::Lock::Timeout=120"]
    silent = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        done = subprocess.run([*command, *step], env=silent, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"apt-get could not install it: {done.stderr[-200:]}"


def look_over(browser, file):
    """Assert that a page is sound on a phone, a desktop, in the dark and on paper."""
    for width, dark in ((360, False), (390, True), (1280, False), (1280, True)):
        page = browser.open(file, width, dark)
        assert page.ask(WIDTH) == width, page.ask(OVER_THE_EDGE)
        page.ask("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.ask(WIDTH) == width and page.ask(OVER_THE_EDGE) == []
        assert page.ask(TOO_FAINT) == []
        assert page.requests == [file.resolve().as_uri()] and page.complaints == []
        page.close()
    page = browser.open(file, 703, dark=True)  # A4 without its margins
    page.media("print")
    assert page.ask(WIDTH) == 703 and page.ask(OVER_THE_EDGE) == []
    assert page.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.paper().startswith(b"%PDF")
    page.close()
