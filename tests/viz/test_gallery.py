"""The gallery: what is kept comes back, and what is damaged is left alone."""

import pytest

from dnnlib import UserError
from viz.gallery import Gallery, Kept
from viz.states import State


@pytest.fixture
def gallery(tmp_path):
    return Gallery(tmp_path / "new" / "gallery.json")


def test_heads_come_back_from_the_file(gallery):
    state = State(seed=3, mix=(1, 2), directions=(0.5,), target=(0.1, 0, 0))
    gallery.keep("  my   head ", "a.pkl", state)
    gallery.keep("other", "b.pkl", State())
    assert Gallery(gallery.path).heads() == {"my head": Kept("a.pkl", state), "other": Kept("b.pkl", State())}
    gallery.remove("other")
    gallery.remove("none")
    assert list(gallery.heads()) == ["my head"]


def test_directions_have_names_for_each_network(gallery):
    gallery.name_direction("a.pkl", 0, "age")
    gallery.name_direction("a.pkl", 3, "hair")
    assert gallery.directions("a.pkl") == {0: "age", 3: "hair"} and gallery.directions("b.pkl") == {}


@pytest.mark.parametrize("name", ["", "   ", "x" * 61])
def test_names_are_short_lines(gallery, name):
    with pytest.raises(UserError, match="1 to 60"):
        gallery.keep(name, "a.pkl", State())
    assert not gallery.path.exists()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"heads": {}}', '{"heads": {"a": {"network": "n", "state": {"sed": 1}}}, "directions": {}}']
)
def test_a_damaged_file_is_told_and_stays(gallery, text):
    gallery.path.parent.mkdir()
    gallery.path.write_text(text)
    with pytest.raises(UserError, match="damaged"):
        gallery.heads()
    assert gallery.path.read_text() == text
