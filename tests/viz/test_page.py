"""The viewer in a real browser: what a person sees and does."""

import time
import urllib.error
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
from browser import settle, until

from viz.states import State

pytestmark = pytest.mark.browser


def difference(a, b):
    return np.abs(a.astype(float) - b).mean()


def sharpness(image):
    """Mean difference of neighbouring pixels: what an enlarged draft lacks."""
    return np.abs(np.diff(image.astype(float).mean(axis=2), axis=0)).mean()


def test_the_page_opens_and_shows_a_head(fresh):
    viewer, page, tab = fresh
    until(lambda: "heads-128.pkl" in page.text())
    until(lambda: page.scene().std() > 30, 20, "no head")
    shown = page.scene()
    skin, corner = shown[int(0.3 * len(shown)), len(shown) // 2].astype(int), shown[20, 20].astype(int)
    assert skin[0] > skin[2] + 15 and abs(corner[0] - corner[2]) < 40  # a forehead before grey
    assert tab.state == State()


def test_a_drag_turns_the_head_and_it_ends_sharp(fresh):
    viewer, page, tab = fresh
    left, top, width, height = page.canvas()
    before = page.scene()
    page.drag(left + width / 2, top + height / 2, 120, 0)
    until(lambda: tab.state.yaw not in (0.0, 360.0))
    settle_camera(viewer, tab)
    after = page.scene()
    assert difference(before, after) > 5
    assert 180 < tab.state.yaw < 355  # the mouse takes the head with it: to the right
    assert tab.state.distance == pytest.approx(2.7, abs=0.01)
    assert sharpness(after) > 0.7 * sharpness(before)


def test_the_wheel_comes_closer_and_the_right_button_pans(fresh):
    viewer, page, tab = fresh
    left, top, width, height = page.canvas()
    page.mouse("mouseWheel", left + width / 2, top + height / 2, deltaX=0, deltaY=-400)
    until(lambda: tab.state.distance < 2.6)
    page.drag(left + width / 2, top + height / 2, 60, 30, button="right")
    until(lambda: abs(tab.state.target[0]) > 0.01)
    settle_camera(viewer, tab)
    assert page.scene().std() > 20


def test_next_changes_the_face_and_the_field_follows(fresh):
    viewer, page, tab = fresh
    before = page.scene()
    page.click_text("Next", "button")
    until(lambda: tab.state.seed == 1)
    settle(viewer)
    until(lambda: difference(before, page.scene()) > 3)
    page.focus("Seed")
    page.type("12")
    until(lambda: tab.state.seed == 12)


def test_a_click_in_the_grid_chooses_a_head(fresh):
    viewer, page, tab = fresh
    page.click_text("Grid", "button")
    until(lambda: tab.seeds == list(range(16)))
    settle(viewer)
    left, top, width, height = page.canvas()
    side = min(width, height)
    page.click(left + width / 2 + side / 8, top + side * 3 / 8)  # third column, second row
    until(lambda: tab.seeds is None and tab.state.seed == 6, 10, f"{tab.state}")


@pytest.mark.parametrize(
    "choice, change",
    [
        ("Depth", dict(image_mode="image_depth")),
        ("Normals", dict(image_mode="image_normals")),
        ("White", dict(background="white")),
    ],
)
def test_what_is_shown_can_be_chosen(fresh, choice, change):
    viewer, page, tab = fresh
    before = page.scene()
    page.click_text("View", "[role=tab]")
    page.focus("Background" if "background" in change else "Show")
    page.run("document.activeElement.click()")
    page.click_text(choice, "[role=option]")
    until(lambda: tab.state == replace(State(), **change))
    settle(viewer)
    until(lambda: difference(before, page.scene()) > 5)


def test_two_pages_have_a_state_each_and_a_reload_keeps_it(serve, open_page):
    viewer = serve()
    page, tab = open_page(viewer)
    other, other_tab = open_page(viewer)
    tab.edit(seed=3)
    assert other_tab.state.seed == 0 and tab.state.seed == 3
    page.front()
    page.reload()
    until(lambda: tab.closed, 30)
    again = until(lambda: next((one for one in viewer.tabs.values() if one not in (tab, other_tab)), None), 30)
    assert again.state.seed == 3


def test_a_closed_page_stops_its_work(serve, open_page):
    viewer = serve()
    page, tab = open_page(viewer)
    tab.seeds = list(range(100, 116))  # work for a while
    tab.refresh()
    page.run("window.location = 'about:blank'")
    until(lambda: tab.closed, 30)
    until(lambda: not viewer.painter.has_wish(tab), 5)
    assert not viewer.tabs


def test_values_that_no_control_offers_are_refused_in_a_line(fresh):
    viewer, page, tab = fresh
    page.focus("Seed")
    page.type("99999999999")
    time.sleep(1)
    assert 0 <= tab.state.seed < 2**32
    tab.tell("a line")
    until(lambda: "a line" in page.text())


def test_nothing_but_the_page_is_served(one_page):
    viewer = one_page[0]
    above = ("/../../../../etc/passwd", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/..%5c..%5cpyproject.toml")
    for path in (*above, "/models/heads-128.pkl"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"http://127.0.0.1:{viewer.port}{path}")
        assert error.value.code == 404, path


def test_a_taken_port_gives_the_next_one(serve):
    first = serve()
    second = serve()
    assert second.port > first.port


def test_no_page_can_ask_for_a_public_address(one_page):
    viewer = one_page[0]
    assert viewer.server.request_share_url() is None and viewer.server._share_tunnel is None


def settle_camera(viewer, tab):
    """Wait until the page's camera has come to rest and the best picture is there."""
    last = [None]

    def rests():
        last[:] = [tab.state] if last[0] is not tab.state else [tab.state, True]
        time.sleep(0.4)
        return len(last) == 2

    until(rests, 30)
    settle(viewer)
    time.sleep(0.3)  # the browser draws it
