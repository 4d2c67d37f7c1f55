"""Work in the background of a page: it says how far it is, and can be cancelled."""

import threading
import traceback
from collections.abc import Callable

from dnnlib import UserError


class Cancelled(Exception):
    """The work was given up because nobody wants it any more."""


class Job:
    """Runs `work(job)` in a thread of its own; then `done(None)`, or `done(reason)` with why it failed, in a line.

    Work calls `step` now and then, which raises Cancelled after `cancel`, and which passes on to `told` how far it is.
    """

    def __init__(self, work: Callable[["Job"], None], told: Callable[[float], None], done: Callable[[str | None], None]):
        self._work, self._told, self._done = work, told, done
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the work still goes on."""
        return self._thread.is_alive()

    @property
    def is_cancelled(self) -> bool:
        """Whether it was asked to stop."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Stop at the next step."""
        self._cancelled.set()

    def wait(self) -> None:
        """Until the work has ended."""
        self._thread.join()

    def step(self, share: float) -> None:
        """A part, `share` of all from 0 to 1, is done; raises Cancelled if the rest is not wanted."""
        if self._cancelled.is_set():
            raise Cancelled
        self._told(share)

    def _run(self) -> None:
        reason = None
        try:
            self._work(self)
        except Cancelled:
            reason = "cancelled"
        except UserError as error:
            reason = str(error)
        except Exception as error:  # the page says so, and the program goes on
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        self._done(reason)
