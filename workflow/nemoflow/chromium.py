"""Headless Chromium, as far as a page of ours needs it: open, look, print, ask, take a picture.

It is spoken to over its DevTools protocol (https://chromedevtools.github.io/devtools-protocol)
through a pair of pipes, its file descriptors 3 and 4: no port is open, no client is needed, and it
ends with the process that started it.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemoflow.errors import UserError

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 60  # seconds for an answer; the first one waits for the program's start
FLAGS = (
    "--headless",
    "--no-sandbox",  # root may not start it otherwise; it opens only pages of ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
COMPLAINTS = {
    "Runtime.exceptionThrown": lambda told: told["exceptionDetails"]["text"],
    "Runtime.consoleAPICalled": lambda told: str([one.get("value") for one in told["args"]]),
    "Log.entryAdded": lambda told: told["entry"]["text"],
}


def program() -> str | None:
    """The name of a Chromium that is installed."""
    return next((name for name in PROGRAMS if shutil.which(name)), None)


class Pipes:
    """Messages to and from Chromium: JSON, each ended by a zero byte."""

    def __init__(self, folder: str):
        """Start it, with its profile in `folder`; UserError where none is installed."""
        name = program()
        if name is None:
            raise UserError("no Chromium here; install it: apt-get install chromium")
        read, self.to = os.pipe()
        self.told, write = os.pipe()
        # No POSIX shell can name a descriptor above 9; bash can.
        shell = ["bash", "-c", f'exec "$@" 3<&{read} 4>&{write}', "chromium"]
        command = [*shell, name, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        home = {**os.environ, "HOME": folder}  # it writes there, too
        self.process = subprocess.Popen(
            command, pass_fds=(read, write), stderr=subprocess.DEVNULL, env=home
        )
        os.close(read)
        os.close(write)
        self.rest = b""

    def send(self, message: dict[str, Any]) -> None:
        """Send a message."""
        try:
            os.write(self.to, json.dumps(message).encode() + b"\0")
        except BrokenPipeError:
            raise UserError("Chromium has ended") from None

    def receive(self) -> dict[str, Any]:
        """The next message; UserError where none comes."""
        until = time.monotonic() + PATIENCE
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.told], [], [], max(0, until - time.monotonic()))
            if not ready:
                raise UserError(f"Chromium says nothing for {PATIENCE} seconds")
            if not (more := os.read(self.told, 1 << 20)):
                raise UserError("Chromium has ended")
            self.rest += more
        first, _, self.rest = self.rest.partition(b"\0")
        return json.loads(first)

    def close(self) -> None:
        """Close the pipes, at which Chromium ends."""
        os.close(self.to)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.told)


@contextmanager
def browser() -> Iterator["Browser"]:
    """Start Chromium, and end it.

    Raises:
        UserError: none is installed, or it does not answer.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        pipes = Pipes(folder)
        try:
            yield Browser(pipes)
        finally:
            pipes.close()


@dataclass
class Browser:
    """A running Chromium."""

    pipes: Pipes
    last: int = 0

    def call(self, method: str, page: "Page | None" = None, **given: Any) -> dict[str, Any]:
        """The result of a method of the protocol, after its events were handed to `page`."""
        self.last += 1
        session = {"sessionId": page.session} if page else {}
        self.pipes.send({"id": self.last, "method": method, "params": given, **session})
        while (told := self.pipes.receive()).get("id") != self.last:
            if page and told.get("sessionId") == page.session:
                page.hear(told)
        if "error" in told:
            raise UserError(f"Chromium refuses {method}: {told['error']['message']}")
        return told["result"]

    def open(self, file: Path, width: int = 1280, dark: bool = False) -> "Page":
        """A page of a file in a window `width` CSS pixels wide, light or dark, when it has loaded.

        Below 800 pixels it is a phone's, with two device pixels for each.
        """
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        told = self.call("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, told["sessionId"], target)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        phone = width < 800
        sizes = {"width": width, "height": 844 if phone else 800, "mobile": phone}
        page.call(
            "Emulation.setDeviceMetricsOverride", deviceScaleFactor=2 if phone else 1, **sizes
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        told = page.call("Page.navigate", url=file.resolve().as_uri())
        if "errorText" in told:
            raise UserError(f"{file}: Chromium cannot open it: {told['errorText']}")
        while not page.loaded:
            page.hear(self.pipes.receive())
        return page


@dataclass
class Page:
    """A page that is open: what it asked the network for, and what it complained of."""

    browser: Browser
    session: str
    target: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    loaded: bool = False

    def hear(self, told: dict[str, Any]) -> None:
        """Take notice of an event."""
        method, params = told.get("method", ""), told.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method in COMPLAINTS:
            self.complaints.append(COMPLAINTS[method](params))
        elif method == "Page.loadEventFired":
            self.loaded = bool(self.requests)  # the empty page before it loads, too

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """The result of a method of the protocol for this page."""
        return self.browser.call(method, self, **given)

    def ask(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in told:
            found = told["exceptionDetails"]["exception"]["description"]
            raise UserError(f"{script[:60]}: {found}")
        return told["result"].get("value")

    def picture(self, top: float = 0, height: float | None = None) -> bytes:
        """A PNG of the page's full width from `top` on, `height` CSS pixels of it or all."""
        width, whole = self.ask("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": top, "width": width, "height": height or whole - top, "scale": 1}
        told = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(told["data"])

    def paper(self) -> bytes:
        """The page printed on A4, as PDF."""
        size = {"paperWidth": 8.27, "paperHeight": 11.69}  # inches
        return base64.b64decode(self.call("Page.printToPDF", **size)["data"])

    def media(self, name: str) -> None:
        """Lay the page out for `print` or `screen`."""
        self.call("Emulation.setEmulatedMedia", media=name)

    def close(self) -> None:
        """Close it."""
        self.browser.call("Target.closeTarget", targetId=self.target)
