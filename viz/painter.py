"""One thread that draws for all pages: the quickest picture first, better ones while nothing changes, nothing out of date."""

import threading
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from dnnlib import UserError
from viz.picture import Stale

PATIENCE = 0.3  # seconds after which even the quickest picture is given up for a newer wish

Draw = Callable[[Callable[[], bool]], np.ndarray]  # makes a picture, and asks now and then whether it is still wanted
Show = Callable[[np.ndarray, bool], None]  # gets a picture, and whether it is the best there will be
Fail = Callable[[str], None]  # gets the reason why there is none, in a line


class _Wish:
    """The pictures that one page wants to see, one after the other."""

    def __init__(self, draws: Sequence[Draw], show: Show, fail: Fail):
        self.draws, self.show, self.fail, self.stage = draws, show, fail, 0

    @property
    def is_at_last(self) -> bool:
        return self.stage + 1 == len(self.draws)


class Painter:
    """Draws what pages wish, the least finished first.  A page has one wish: a new one replaces it."""

    def __init__(self) -> None:
        self._wishes: dict[Hashable, _Wish] = {}
        self._changed = threading.Condition()
        self._network = threading.Lock()  # networks are for one thread at a time
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="painter", daemon=True)
        self._thread.start()

    def wish(self, page: Hashable, draws: Sequence[Draw], show: Show, fail: Fail) -> None:
        """Show `page` what each of `draws` makes: the first at once, the others while it wishes nothing else."""
        with self._changed:
            self._wishes.pop(page, None)  # last in the order: pages take turns
            self._wishes[page] = _Wish(draws, show, fail)
            self._changed.notify_all()

    def forget(self, page: Hashable) -> None:
        """Draw nothing more for `page`."""
        with self._changed:
            self._wishes.pop(page, None)
            self._changed.notify_all()

    def has_wish(self, page: Hashable) -> bool:
        """Whether something is still to be drawn for `page`."""
        return page in self._wishes

    def stop(self) -> None:
        """Draw nothing more, and wait for what is being drawn."""
        with self._changed:
            self._stopped = True
            self._wishes.clear()
            self._changed.notify_all()
        self._thread.join()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The networks for this thread alone, once no page waits for a picture: for films and meshes, a frame at a time."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or not self._wishes)
        with self._network:
            yield

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._wishes)
                if self._stopped:
                    return
                page, wish = min(self._wishes.items(), key=lambda item: item[1].stage)
            self._draw(page, wish)

    def _draw(self, page: Hashable, wish: _Wish) -> None:
        begin = time.monotonic()

        def stale() -> bool:
            """Quick pictures are shown even if late, or a page that moves all the time would show nothing."""
            hurry = wish.stage > 0 or time.monotonic() - begin > PATIENCE
            return hurry and self._wishes.get(page) is not wish

        try:
            with self._network:
                drawn = wish.draws[wish.stage](stale)
            if page in self._wishes and not (wish.stage > 0 and stale()):
                wish.show(drawn, wish.is_at_last)
        except Stale:
            return
        except UserError as error:
            self._give_up(page, wish, str(error))
        except Exception as error:  # a page must not end the thread that draws for the others
            traceback.print_exc()
            self._give_up(page, wish, f"{type(error).__name__}: {error}".splitlines()[0])
        else:
            with self._changed:
                if wish.is_at_last and self._wishes.get(page) is wish:
                    del self._wishes[page]
                    self._changed.notify_all()
                wish.stage += 1

    def _give_up(self, page: Hashable, wish: _Wish, reason: str) -> None:
        with self._changed:
            if self._wishes.get(page) is wish:
                del self._wishes[page]
            self._changed.notify_all()
        wish.fail(reason)
