"""The shipped network to look at, a viewer that serves it, and a browser."""

import time

import pytest
from browser import Browser, settle, until

from visualizer import SHIPPED
from viz import picture
from viz.networks import Library
from viz.states import State


@pytest.fixture(scope="session")
def network():
    """The shipped network."""
    return picture.load(str(SHIPPED), "cpu")


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    """Starts a viewer of some networks, and stops it at the end."""
    started = []

    def start(*given, **kwargs):
        from viz.page import Viewer

        library = Library(list(map(str, given or [SHIPPED])), "cpu", **kwargs)
        outputs = str(tmp_path_factory.mktemp("outputs"))
        started.append(Viewer(library, library.names()[0], State(), "127.0.0.1", 18080, False, outputs))
        return started[-1]

    yield start
    for viewer in started:
        viewer.stop()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium, for all tests that open pages."""
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def open_page(browser):
    """Opens pages of a viewer, each until its picture is there, and closes them at the end."""
    opened = []

    def open_one(viewer):
        before = set(viewer.tabs.values())
        opened.append(browser.open(f"http://127.0.0.1:{viewer.port}"))
        tab = until(lambda: next((tab for tab in viewer.tabs.values() if tab not in before), None), 120, "no page opened")
        settle(viewer)
        return opened[-1], tab

    yield open_one
    for page in opened:
        browser.close(page)


@pytest.fixture(scope="module")
def one_page(serve, open_page):
    """A viewer of the shipped network, and a page of it."""
    viewer = serve()
    return viewer, *open_page(viewer)


@pytest.fixture
def fresh(one_page):
    """That viewer, page and tab as they were at first."""
    viewer, page, tab = one_page
    page.front()
    tab.seeds = None
    tab.show_state(State())
    page.click_text("Head", "[role=tab]")
    time.sleep(0.5)  # the browser moves its camera
    settle(viewer)
    return viewer, page, tab
