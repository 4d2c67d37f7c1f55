"""The thread that draws: quick pictures first, nothing out of date, pages in turn."""

import threading
import time

import numpy as np
import pytest
from browser import until

from dnnlib import UserError
from viz import painter as painting
from viz.painter import Painter
from viz.picture import Stale


@pytest.fixture
def painter():
    painter = Painter()
    yield painter
    painter.stop()


def drawing(number):
    return lambda stale: np.full([1, 1, 3], number, dtype=np.uint8)


def collect(into):
    return lambda pixels, best: into.append((int(pixels[0, 0, 0]), best))


def test_pictures_come_one_after_the_other(painter):
    shown = []
    painter.wish("a", [drawing(1), drawing(2), drawing(3)], collect(shown), pytest.fail)
    until(lambda: not painter.has_wish("a"))
    assert shown == [(1, False), (2, False), (3, True)]


def test_a_new_wish_replaces_what_is_being_drawn(painter):
    shown, begun = [], threading.Event()

    def slow(stale):
        begun.set()
        until(stale)
        raise Stale

    painter.wish("a", [drawing(1), slow], collect(shown), pytest.fail)
    begun.wait(5)
    painter.wish("a", [drawing(3)], collect(shown), pytest.fail)
    until(lambda: not painter.has_wish("a"))
    assert shown == [(1, False), (3, True)]


def test_the_quickest_picture_is_shown_even_if_late(painter):
    shown, begun, go_on = [], threading.Event(), threading.Event()

    def first(stale):
        begun.set()
        go_on.wait(5)
        assert not stale()
        return drawing(1)(stale)

    painter.wish("a", [first, drawing(2)], collect(shown), pytest.fail)
    begun.wait(5)
    painter.wish("a", [drawing(3)], collect(shown), pytest.fail)
    go_on.set()
    until(lambda: not painter.has_wish("a"))
    assert shown == [(1, False), (3, True)]


def test_but_not_if_it_takes_long(painter, monkeypatch):
    monkeypatch.setattr(painting, "PATIENCE", 0.05)
    shown, begun = [], threading.Event()

    def first(stale):
        begun.set()
        until(stale)
        raise Stale

    painter.wish("a", [first], collect(shown), pytest.fail)
    begun.wait(5)
    painter.wish("a", [drawing(3)], collect(shown), pytest.fail)
    until(lambda: not painter.has_wish("a"))
    assert shown == [(3, True)]


def test_the_quick_picture_of_one_page_comes_before_the_best_of_another(painter):
    order, begun, go_on = [], threading.Event(), threading.Event()

    def first(stale):
        begun.set()
        go_on.wait(5)
        return drawing(0)(stale)

    painter.wish("a", [first, drawing(1)], collect(order), pytest.fail)
    begun.wait(5)
    painter.wish("b", [drawing(2), drawing(3)], collect(order), pytest.fail)
    go_on.set()
    until(lambda: not painter.has_wish("a") and not painter.has_wish("b"))
    assert [number for number, _ in order][:2] == [0, 2]


ERRORS = [(UserError("no such head"), "no such head"), (ValueError("a bug\nof ours"), "ValueError: a bug")]


@pytest.mark.parametrize("error, text", ERRORS)
def test_what_goes_wrong_is_told_and_the_thread_goes_on(painter, error, text, capsys):
    told, shown = [], []

    def fail(stale):
        raise error

    painter.wish("a", [fail], collect(shown), told.append)
    until(lambda: told)
    painter.wish("a", [drawing(1)], collect(shown), told.append)
    until(lambda: shown)
    assert told == [text] and shown == [(1, True)]


def test_a_closed_page_gets_nothing_more(painter):
    shown, begun = [], threading.Event()

    def slow(stale):
        begun.set()
        until(stale)
        raise Stale

    painter.wish("a", [drawing(1), slow, drawing(2)], collect(shown), pytest.fail)
    begun.wait(5)
    painter.forget("a")
    time.sleep(0.1)
    assert shown == [(1, False)]


def test_films_wait_for_pages(painter):
    order, go_on = [], threading.Event()

    def slow(stale):
        go_on.wait(5)
        return drawing(1)(stale)

    painter.wish("a", [slow], lambda *_: order.append("page"), pytest.fail)

    def film():
        with painter.turn():
            order.append("film")

    thread = threading.Thread(target=film)
    thread.start()
    time.sleep(0.1)
    go_on.set()
    thread.join(5)
    assert order == ["page", "film"]
