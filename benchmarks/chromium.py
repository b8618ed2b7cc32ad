"""A headless Chromium, driven over its DevTools protocol: load a page, run JavaScript in it, look at its pixels."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60.0  # for an answer, on a machine that is busy


def find_chromium() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Chromium:
    """One browser with one page. problems: what the console complained of, and what was asked of the network."""

    def __init__(self) -> None:
        import websocket

        program = find_chromium()
        if program is None:
            raise RuntimeError("no Chromium on this machine")
        self.profile = tempfile.TemporaryDirectory(prefix="chromium-")
        # As root, in a container: without its sandbox, which needs what a container does not give.
        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
             "--remote-debugging-port=0", "--remote-allow-origins=*", "--no-first-run", "--disable-extensions",
             "--disable-background-networking", f"--user-data-dir={self.profile.name}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.socket = websocket.create_connection(self._address(), timeout=SECONDS, suppress_origin=True)
        self.number = 0
        self.session = ""
        self.problems: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.profile.name, ignore_errors=True)

    def _address(self) -> str:
        """Where it listens, which it writes into its profile. Raises RuntimeError where it ends before."""
        noted = Path(self.profile.name) / "DevToolsActivePort"
        begun = time.monotonic()
        while not noted.is_file() or len(lines := noted.read_text().splitlines()) < 2:
            if self.process.poll() is not None or time.monotonic() - begun > SECONDS:
                raise RuntimeError(f"Chromium did not start: exit code {self.process.poll()}")
            time.sleep(0.02)
        return f"ws://127.0.0.1:{lines[0]}{lines[1]}"

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser, and return its answer. Raises RuntimeError where it refuses."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._take(answer)

    def _take(self, event: dict[str, Any]) -> None:
        kind, told = event.get("method"), event.get("params", {})
        if kind == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.problems.append(str(details.get("exception", {}).get("description", details["text"])))
        elif kind == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.problems.append(json.dumps(told["args"]))
        elif kind == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.problems.append(told["entry"]["text"])
        elif kind == "Network.requestWillBeSent" and not told["request"]["url"].startswith("data:"):
            self.requests.append(told["request"]["url"])

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited. Raises RuntimeError for one that throws."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def look(self, width: int = 1400, height: int = 1000, dark: bool = False, media: str = "") -> None:
        """Give the page a window of that size, and a theme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[theme])

    def open(self, page: Path) -> float:
        """Load a page from the disk; returns the seconds until its panels are drawn."""
        self.problems.clear()
        self.requests.clear()
        self.call("Page.navigate", url="about:blank")
        begun = time.monotonic()
        self.call("Page.navigate", url=page.absolute().as_uri())
        self._drawn(begun)
        return time.monotonic() - begun

    def reload(self) -> None:
        """Load the page again, with the address that it has by now."""
        self.run("delete document.documentElement.dataset.ready")
        self.call("Page.reload")
        self._drawn(time.monotonic())

    def _drawn(self, begun: float) -> None:
        while self.run("document.documentElement?.dataset.ready") != "yes":
            if time.monotonic() - begun > SECONDS:
                raise RuntimeError(f"the page was not ready: {self.problems}")
            time.sleep(0.01)
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def picture(self, place: Path | None = None, whole: bool = False) -> bytes:
        """A PNG of the window, or of the whole page."""
        content = base64.b64decode(
            self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        )
        if place is not None:
            place.write_bytes(content)
        return content

    def drag(self, start: tuple[float, float], end: tuple[float, float], steps: int = 4) -> None:
        """Press the pointer, move it, and let go. Both (x, y) in the window."""
        self.mouse("mousePressed", *start)
        for step in range(1, steps + 1):
            self.mouse("mouseMoved", *(a + (b - a) * step / steps for a, b in zip(start, end, strict=True)))
        self.mouse("mouseReleased", *end)

    def mouse(self, kind: str, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def key(self, name: str) -> None:
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        text = {"Enter": "\r", " ": " "}.get(name, "")
        common = {"key": name, "code": "Space" if name == " " else name, "windowsVirtualKeyCode": codes[name]}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def paper(self) -> bytes:
        """The page on A4, as PDF."""
        sizes = {"paperWidth": 8.27, "paperHeight": 11.69}  # inches
        answer = self.call("Page.printToPDF", **sizes, printBackground=True, preferCSSPageSize=True)
        return base64.b64decode(answer["data"])
