"""Rows of numbers that are kept on disk and taken up again."""

import numpy as np
import pytest

from metrics.store import Stopped, Store


class Squares:
    """Computes squares, and remembers of which numbers."""

    def __init__(self, names=("square",)):
        self.names = names
        self.asked = []

    def __call__(self, numbers):
        self.asked += numbers.tolist()
        return {name: numbers.astype(np.float32)[:, None] ** 2 for name in self.names}


def rows(folder, numbers, compute, names=("square",), **options):
    return Store(folder, chunk=4, **options).rows(np.array(numbers), compute, names, "test")


def test_rows_come_in_the_order_of_the_numbers_and_are_computed_once(tmp_path):
    compute = Squares()
    assert rows(tmp_path, [9, 2, 2, 0], compute)["square"].ravel().tolist() == [81, 4, 4, 0]
    assert sorted(compute.asked) == [0, 2, 9]
    assert rows(tmp_path, range(10), compute)["square"].ravel().tolist() == [n**2 for n in range(10)]
    assert sorted(compute.asked) == list(range(10))


def test_what_was_computed_before_an_end_is_not_computed_again(tmp_path):
    first, second = Squares(), Squares()

    def breaks(numbers):
        if 8 in numbers:
            raise KeyboardInterrupt
        return first(numbers)

    with pytest.raises(KeyboardInterrupt):
        rows(tmp_path, range(12), breaks)
    assert rows(tmp_path, range(12), second)["square"][11] == 121
    assert first.asked == list(range(8)) and second.asked == list(range(8, 12))


def test_somebody_can_stop_it_between_two_files(tmp_path):
    compute = Squares()
    with pytest.raises(Stopped):
        rows(tmp_path, range(12), compute, stop=lambda: len(compute.asked) >= 4)
    assert compute.asked == [0, 1, 2, 3]


def test_a_damaged_file_is_computed_anew(tmp_path):
    rows(tmp_path, range(8), Squares())
    (tmp_path / "00000001.npz").write_bytes(b"half a file")
    compute = Squares()
    assert rows(tmp_path, range(8), compute)["square"][7] == 49
    assert compute.asked == [4, 5, 6, 7]


def test_a_name_that_was_not_kept_is_computed(tmp_path):
    rows(tmp_path, range(4), Squares())
    both = Squares(("square", "again"))
    assert rows(tmp_path, range(4), both, names=both.names)["again"][3] == 9
    assert both.asked == [0, 1, 2, 3]


def test_only_what_is_temporary_is_removed(tmp_path):
    for temporary in (False, True):
        store = Store(tmp_path / str(temporary), 4, temporary=temporary)
        store.rows(np.arange(3), Squares(), ("square",), "test")
        store.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["False"]
