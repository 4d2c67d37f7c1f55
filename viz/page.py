"""The page: a server, and for each open tab a state, its camera, and the picture behind the panels."""

import contextlib
import functools
import io
import math
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import PIL.Image

import camera_utils
from dnnlib import UserError
from viz import file_panels, grid, inversions, panels, picture, states
from viz.gallery import Gallery
from viz.jobs import Job
from viz.networks import Library
from viz.painter import Draw, Painter
from viz.picture import Network
from viz.states import State

PORTS_TRIED = 100
LIGHT, DARK = (255, 255, 255), (20, 21, 23)  # of the page around the picture
DRAFT_SIDE, SIDE = 384, 1024  # pixels of the square on the page, at most: while it moves, and at the end
MAX_WINDOW = 8192  # pixels along a side; a page may say what it likes
QUALITY = 90  # of the JPEG that goes to the page
CAMERA_SECONDS = 1.0  # in which a page's camera is where the program has put it
WATCH_SECONDS = 5.0  # between two looks for new snapshots
ALONE_SECONDS = 60.0  # without any page, until an inversion ends: a reload takes less


def import_viser() -> Any:
    """The viewer's library; UserError with the command that installs it."""
    try:
        import viser  # here: an extra
    except ImportError:
        raise UserError('the viewer wants viser, which is not installed: pip install -e ".[viewer]"') from None
    return viser


def free_port(host: str, port: int) -> int:
    """`port`, or the first after it that nobody listens on; UserError if `host` cannot be used or all are taken."""
    for candidate in range(port, min(port + PORTS_TRIED, 2**16)):
        try:
            family = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind((host, candidate))
                return trial.getsockname()[1]
        except socket.gaierror as error:
            raise UserError(f"--host {host}: {error.strerror}") from None
        except OSError as error:
            reason = error.strerror
    raise UserError(f"--port {port}: cannot listen there or on the next {PORTS_TRIED} ports of {host}: {reason}")


@contextlib.contextmanager
def _own_pages_only() -> Iterator[None]:
    """Servers that viser starts inside refuse other sites' pages, which a browser would let connect to them."""
    import websockets.asyncio.server as server  # comes with viser

    serve = server.serve

    def serve_own(*args: Any, process_request: Callable, **kwargs: Any) -> Any:
        def check(connection: Any, request: Any) -> Any:
            origin = request.headers.get("Origin")
            if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
                return connection.respond(HTTPStatus.FORBIDDEN, "This is for pages of this address only.\n")
            return process_request(connection, request)

        return serve(*args, process_request=check, **kwargs)

    server.serve = serve_own
    try:
        yield
    finally:
        server.serve = serve


class Viewer:
    """Serves pages on `host` until `stop`.

    A page begins with what was looked at last: `first` of `library`, and `state`.
    """

    def __init__(self, library: Library, first: str, state: State, host: str, port: int, dark: bool, outputs: str):
        viser = import_viser()
        self.library, self.state, self.dark, self.outputs = library, state, dark, Path(outputs)
        self.gallery, self.inversion, self._lock = Gallery(self.outputs / "gallery.json"), None, threading.Lock()
        self.network = library.get(first)  # what cannot be loaded ends the command, before anything is served
        self.painter, self.tabs, self._stopped = Painter(), {}, threading.Event()

        class Server(viser.ViserServer):
            def request_share_url(self, verbose: bool = True) -> None:
                """Nothing: any page could ask for a public address."""

        with contextlib.redirect_stdout(io.StringIO()), _own_pages_only():  # its banner
            self.server = Server(host=host, port=free_port(host, port), label="multi_pose", verbose=False)
        self.port = self.server.get_port()
        self.server.gui.configure_theme(dark_mode=dark, show_logo=False, show_share_button=False, control_width="medium")
        self.server.scene.set_up_direction("+y")
        self.server.scene.world_axes.visible = False
        first_camera = self.server.initial_camera  # what pages report before they have heard of their own
        first_camera.position, first_camera.look_at = states.position_of(state), state.target
        self.server.on_client_connect(self._open)
        self.server.on_client_disconnect(self._close)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def stop(self) -> None:
        """Close all pages."""
        self._stopped.set()
        for tab in list(self.tabs.values()):
            tab.close()
        if self.inversion is not None:
            self.inversion.cancel()
            self.inversion.wait()
        self.painter.stop()
        with contextlib.redirect_stdout(io.StringIO()):
            self.server.stop()

    def invert(self, asker: "Tab", name: str, content: bytes, network: str, steps: int, tuning_steps: int) -> None:
        """Make a head of a photo in the background; all pages see how far it is, and the one that asked shows it.

        UserError if another photo is being worked on.
        """
        found: list[str] = []

        def work(job: Job) -> None:
            library, photo = self.library, inversions.save_photo(name, content, self.outputs / "inversions")
            folder = inversions.invert(photo, network, job, steps, tuning_steps, library.trust_pickle, library.device)
            library.add(str(folder))
            found.append(str(folder))

        def done(reason: str | None) -> None:
            for tab in list(self.tabs.values()):
                is_asker = tab is asker or asker.closed  # a reload is another page of the same person
                tab.inversion_ended(found[0] if found else None, f"{Path(name).name}: {reason}", is_asker)

        with self._lock:
            if self.inversion is not None and self.inversion.is_running:
                raise UserError("a photo is being worked on: wait for it, or stop it")
            self.inversion = Job(work, self._tell_share, done)

    def _tell_share(self, share: float) -> None:
        for tab in list(self.tabs.values()):
            file_panels.show_inversion(tab, share)

    def _open(self, client: Any) -> None:
        self.tabs[client.client_id] = Tab(self, client)
        if client.client_id not in self.server.get_clients():  # closed meanwhile
            self._close(client)

    def _close(self, client: Any) -> None:
        tab = self.tabs.pop(client.client_id, None)
        if tab is not None:
            tab.close()

    def _watch(self) -> None:
        """Load the new snapshots of runs that are looked at; stop what no page will ever show."""
        alone_since = time.monotonic()
        while not self._stopped.wait(WATCH_SECONDS):
            for tab in list(self.tabs.values()):
                alone_since = time.monotonic()
                tab.reload_if_newer()
            if self.inversion is not None and time.monotonic() - alone_since > ALONE_SECONDS:
                self.inversion.cancel()


class Tab:
    """One open page."""

    def __init__(self, viewer: Viewer, client: Any):
        self.viewer, self.client, self.gui = viewer, client, client.gui
        self.network, self.state, self.dark, self.closed = viewer.network, viewer.state, viewer.dark, False
        self.seeds: list[int] | None = None  # of the grid that is shown instead of one head
        self._pixels: np.ndarray | None = None
        self._is_best = False
        self.lock = threading.RLock()
        self._bound: list[tuple[str, Any, Callable[[Any], Any]]] = []
        client.camera.min_orbit_distance, client.camera.max_orbit_distance = states.MIN_DISTANCE, states.MAX_DISTANCE
        panels.build(self)
        file_panels.show_photo(self)
        self.look_from(self.state)
        client.camera.on_update(lambda _: self._camera_moved())
        client.scene.on_click()(lambda event: self._clicked(*event.screen_pos))
        self.refresh()

    def close(self) -> None:
        """Do nothing more for this page."""
        self.closed = True
        self.viewer.painter.forget(self)
        panels.close(self)

    # The state

    def edit(self, **changes: Any) -> None:
        """Change the state, and draw it if it is another now."""
        with self.lock:
            changed = replace(self.state, **changes)
            if changed == self.state:
                return
            self._take(self.network, changed)
        self.refresh()

    def _take(self, network: Network, state: State) -> None:
        """Look at this from now on; so does the next page that opens, such as this one after a reload."""
        self.network, self.state = self.viewer.network, self.viewer.state = network, state

    def show_state(self, state: State) -> None:
        """Take over a whole state: panels and camera follow."""
        with self.lock:
            self._take(self.network, state)
        for name, handle, to_gui in self._bound:
            handle.value = to_gui(getattr(state, name))
        self.look_from(state)
        self.refresh()

    def bind(self, name: str, handle: Any, from_gui: Callable = lambda value: value, to_gui: Callable = lambda value: value):
        """Let a panel's `handle` show and edit the field `name` of the state."""
        self._bound.append((name, handle, to_gui))
        handle.value = to_gui(getattr(self.state, name))
        self.on(handle.on_update, lambda _: self.edit(**{name: from_gui(handle.value)}))
        return handle

    def on(self, register: Callable, act: Callable[[Any], None]) -> None:
        """Let `act` follow what a person does in the page; what goes wrong is a line there."""

        @register
        @functools.wraps(act)
        def _(event: Any) -> None:
            if event.client is None:  # the program set it
                return
            try:
                act(event)
            except UserError as error:
                self.tell(str(error))
            except Exception as error:  # a page may send what no control offers
                traceback.print_exc()
                self.tell(f"{type(error).__name__}: {error}".splitlines()[0])

    def use(self, name: str) -> None:
        """Look with another network; UserError, and the old one stays, if it cannot be used."""
        network = self.viewer.library.get(name)
        photo = network.pivot is not None
        changes = dict(picture.photo_view(network), face=states.PHOTO) if photo else dict(face=states.SEED)
        with self.lock:
            self._take(network, replace(self.state, **changes))
        panels.network_changed(self)
        self.show_state(self.state)
        file_panels.show_photo(self)

    def reload_if_newer(self) -> None:
        """Take the newest snapshot of the run that is looked at."""
        try:
            if self.viewer.library.file(self.network.name) == self.network.file:
                return
            newest = self.viewer.library.get(self.network.name)
            with self.lock:
                self._take(newest, self.state)
        except (UserError, OSError):  # half written, or removed: the next look will tell
            return
        panels.network_changed(self)
        self.refresh()

    def inversion_ended(self, folder: str | None, reason: str, is_asker: bool) -> None:
        """Show the head that was made of a photo, or say why there is none."""
        file_panels.show_inversion(self, None)
        if not is_asker:
            file_panels.network_changed(self)
        elif folder is None:
            self.tell(reason)
        else:
            try:
                self.use(folder)
            except UserError as error:
                self.tell(str(error))

    # The camera

    def look_from(self, state: State) -> None:
        """Move the page's camera where the state has it."""
        position = states.position_of(state)
        camera = self.client.camera
        self._hears_until = time.monotonic() + CAMERA_SECONDS
        camera.up_direction = (0.0, 1.0, 0.0)
        camera.position, camera.look_at = position, np.array(state.target)

    def _camera_moved(self) -> None:
        camera = self.client.camera
        with contextlib.suppress(UserError):
            changes = states.view_of(camera.position, camera.look_at)
            if states.is_same_view(changes, self.state):
                self._hears_until = 0.0
                self._resized()
            elif time.monotonic() > self._hears_until:  # not a report from before it was moved
                self.edit(**changes)

    # The picture

    def refresh(self) -> None:
        """Draw what the state says, in the place of what was to be drawn."""
        if self.closed:
            return
        state, network = self.state, self.network
        if self.seeds is not None:
            draws = grid.draws(state, network, self.seeds, self._pixels)
        else:
            draws = [self._draw(state, network, detail) for detail in network.details(state.image_mode)]
        self.viewer.painter.wish(self, draws, self._show, self.tell)

    def is_settled(self) -> bool:
        """Whether the page shows the best picture of its state."""
        return self._is_best and not self.viewer.painter.has_wish(self)

    @staticmethod
    def _draw(state: State, network: Network, detail: picture.Detail) -> Draw:
        return lambda stale: picture.picture(state, network, detail, stale)

    def _show(self, pixels: np.ndarray, is_best: bool) -> None:
        self._pixels, self._is_best = pixels, is_best
        self._send()
        if is_best:
            panels.drawn(self)

    def _resized(self) -> None:
        if self._pixels is not None and self._size() != self._sent:
            self._send()

    def _size(self) -> tuple[int, int]:
        camera = self.client.camera
        return min(max(camera.image_width, 1), MAX_WINDOW), min(max(camera.image_height, 1), MAX_WINDOW)

    def _field_of_view(self, size: tuple[int, int]) -> float:
        """Of the whole window, in radians from top to bottom: so that what is panned follows the mouse."""
        focal = camera_utils.FOV_to_intrinsics(self.state.fov_deg)[1, 1].item()
        return 2 * math.atan(0.5 / focal * size[1] / min(size))

    def _send(self) -> None:
        if self.closed:
            return
        size = self._sent = self._size()
        side = SIDE if self._is_best else DRAFT_SIDE
        self.client.camera.fov = self._field_of_view(size)
        canvas = framed(self._pixels, size, side, DARK if self.dark else LIGHT)
        self.client.scene.set_background_image(canvas, format="jpeg", jpeg_quality=QUALITY)
        self.client.flush()

    def _clicked(self, x: float, y: float) -> None:
        """Choose a head of the grid."""
        if self.seeds is None:
            return
        width, height = self._size()
        side = min(width, height)
        seed = grid.seed_at(self.seeds, (x * width - width / 2) / side + 0.5, y * height / side)
        if seed is not None:
            self.seeds = None
            self.show_state(replace(self.state, face=states.SEED, seed=seed))

    def set_dark(self, dark: bool) -> None:
        """Dark or light."""
        self.dark = dark
        self.gui.configure_theme(dark_mode=dark, show_logo=False, show_share_button=False, control_width="medium")
        if self._pixels is not None:
            self._send()

    def tell(self, message: str, title: str = "That did not work", color: str = "red") -> None:
        """Say something in the page, in a line."""
        if not self.closed:
            self.client.add_notification(title, message, color=color, auto_close_seconds=12.0)


def framed(pixels: np.ndarray, size: tuple[int, int], side: int, color: tuple[int, int, int]) -> np.ndarray:
    """A square picture [H, W, 3 or 4] on a canvas of the proportions of `size` (width, height), in a plain colour.

    The square is as large as fits, but of no more than `side` pixels; in the middle, or on top of a tall canvas, as on a phone,
    where the panels come from below.
    """
    width, height = size
    side = min(side, width, height)
    scale = side / min(width, height)
    canvas = PIL.Image.new("RGB", (max(side, round(width * scale)), max(side, round(height * scale))), color)
    square = PIL.Image.fromarray(picture.enlarged(pixels, side))
    corner = ((canvas.width - side) // 2, 0)
    canvas.paste(square.convert("RGB"), corner, square.getchannel("A") if square.mode == "RGBA" else None)
    return np.asarray(canvas)
