"""A headless Chromium, driven over its own protocol: only what the tests of the viewer need."""

import base64
import io
import json
import subprocess
import time
from pathlib import Path

import numpy as np
import PIL.Image
from helpers import CHROMIUM

FLAGS = (
    *("--headless=new", "--no-sandbox", "--remote-debugging-port=0", "--no-first-run", "--disable-dev-shm-usage"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--hide-scrollbars", "--mute-audio"),
    "--disable-background-networking",
)


class Browser:
    """Chromium with one page of `size`; a context manager."""

    def __init__(self, folder: Path, size: tuple[int, int] = (1000, 640)):
        self.size, self.downloads = size, folder / "downloads"
        self.downloads.mkdir(parents=True, exist_ok=True)
        window = f"--window-size={size[0]},{size[1]}"
        command = [CHROMIUM, *FLAGS, window, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port_file = folder / "profile" / "DevToolsActivePort"
        until(port_file.exists, 60)
        until(lambda: len(port_file.read_text().split()) == 2, 10)
        self.port, self._path = port_file.read_text().split()
        self._root = _Socket(f"ws://127.0.0.1:{self.port}{self._path}")
        self._root.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._root.close()
        self._process.terminate()
        self._process.wait()

    def open(self, url: str) -> "Page":
        """A new tab."""
        target = self._root.call("Target.createTarget", url="about:blank")["targetId"]
        return Page(self, f"ws://127.0.0.1:{self.port}/devtools/page/{target}", url, target)

    def close(self, page: "Page") -> None:
        """Close a tab."""
        self._root.call("Target.closeTarget", targetId=page.target)


class Page:
    """One tab: what a person sees and does."""

    def __init__(self, browser: Browser, socket: str, url: str, target: str):
        self._socket, self.target, self.size = _Socket(socket), target, browser.size
        self._socket.call("Page.enable")
        self._socket.call("Runtime.enable")
        self.resize(*browser.size)
        self._socket.call("Page.navigate", url=url)

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        """Another size of the window."""
        self.size = width, height
        self._socket.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def front(self) -> None:
        """Show this tab: Chromium draws only the one in front."""
        self._socket.call("Page.bringToFront")

    def reload(self) -> None:
        """As by the key F5."""
        self._socket.call("Page.reload")

    def run(self, script: str):
        """The value of a JavaScript expression."""
        answer = self._socket.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self) -> str:
        """All the text on the page."""
        return self.run("document.body ? document.body.innerText : ''")

    def screenshot(self) -> np.ndarray:
        """Pixels [H, W, 3]."""
        data = base64.b64decode(self._socket.call("Page.captureScreenshot", format="png")["data"])
        return np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))

    def canvas(self) -> tuple[int, int, int, int]:
        """Left, top, width and height of the scene."""
        box = "document.querySelector('canvas').getBoundingClientRect()"
        return tuple(self.run(f"(r => [r.x, r.y, r.width, r.height].map(Math.round))({box})"))

    def scene(self) -> np.ndarray:
        """Pixels of the square in the middle of the scene, where the picture is."""
        left, top, width, height = self.canvas()
        side = min(width, height)
        x, y = left + (width - side) // 2, top + (height - side) // 2
        return self.screenshot()[y : y + side, x : x + side]

    def mouse(self, kind: str, x: float, y: float, **more) -> None:
        """One event of the mouse: mousePressed, mouseMoved, mouseReleased, mouseWheel."""
        self._socket.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x: float, y: float) -> None:
        """Click with the left button."""
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, button="left", clickCount=1, buttons=1)
        self.mouse("mouseReleased", x, y, button="left", clickCount=1)

    def drag(self, x: float, y: float, dx: float, dy: float, steps: int = 8, button: str = "left") -> None:
        """Press, move, release; in the coordinates of the page."""
        held = dict(button=button, buttons=1 if button == "left" else 2)
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, clickCount=1, **held)
        for step in range(1, steps + 1):
            self.mouse("mouseMoved", x + dx * step / steps, y + dy * step / steps, **held)
            time.sleep(0.02)
        self.mouse("mouseReleased", x + dx, y + dy, button=button, clickCount=1)

    def click_text(self, text: str, tag: str = "*") -> None:
        """Click the innermost visible element with exactly this text."""
        find = f"""(() => {{
            const all = [...document.querySelectorAll({json.dumps(tag)})].filter(e => e.innerText?.trim() === {json.dumps(text)}
                && e.getClientRects().length);
            const element = all.at(-1);
            if (!element) return null;
            element.scrollIntoView({{block: 'center'}});
            const r = element.getBoundingClientRect();
            return [r.x + r.width / 2, r.y + r.height / 2];
        }})()"""
        places = []

        def rests() -> bool:  # folders unfold slowly
            places.append(self.run(find))
            time.sleep(0.1)
            return places[-1] is not None and places[-3:] == [places[-1]] * 3

        until(rests, 60, f"no {text!r} in the page")
        self.click(*places[-1])

    def type(self, text: str) -> None:
        """Type into what has the focus, in the place of what is there, and press Enter."""
        self.run("document.activeElement.select && document.activeElement.select()")
        self._socket.call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            key = dict(key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
            self._socket.call("Input.dispatchKeyEvent", type=kind, **key)

    def focus(self, label: str) -> None:
        """Give the focus to the input with this label."""
        find = f"""(() => {{
            const label = [...document.querySelectorAll('label, div, span, p')].filter(
                e => e.innerText?.trim() === {json.dumps(label)} && e.getClientRects().length).at(-1);
            for (let box = label; box; box = box.parentElement) {{
                const input = box.querySelector('input:not([type=hidden]), textarea');
                if (input) {{ input.scrollIntoView({{block: 'center'}}); input.focus(); return true; }}
            }}
            return false;
        }})()"""
        until(lambda: self.run(find), 60, f"no input {label!r} in {self.text()[:600]!r}")

    def upload(self, data: Path) -> None:
        """Choose a file where the page asks for one."""
        node = self._socket.call("Runtime.evaluate", expression="[...document.querySelectorAll('input[type=file]')].at(-1)")
        self._socket.call("DOM.setFileInputFiles", files=[str(data)], objectId=node["result"]["objectId"])


class _Socket:
    """Commands of the protocol and their answers; events are dropped."""

    def __init__(self, url: str):
        from websockets.sync.client import connect  # comes with viser

        self._connection, self._count = connect(url, max_size=None, open_timeout=30), 0

    def call(self, method: str, **params):
        self._count += 1
        self._connection.send(json.dumps(dict(id=self._count, method=method, params=params)))
        while True:
            answer = json.loads(self._connection.recv(timeout=60))
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def close(self):
        self._connection.close()


def until(condition, seconds: float = 60, message: str = "it did not happen"):
    """What `condition` returns as soon as that is true; AssertionError with `message` if it is not in time."""
    end = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < end, message
        time.sleep(0.05)


def settle(viewer):
    """Wait until all pages show the best picture there is."""
    until(lambda: all(tab.is_settled() for tab in viewer.tabs.values()), 120, "no picture")
