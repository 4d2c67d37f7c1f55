"""Names of metrics."""

import pytest

from dnnlib import UserError
from metrics.requests import parse, parse_all


@pytest.mark.parametrize(
    "name, kind, count, stem",
    [
        ("fid50k_full", "fid", 50_000, "fid50k"),
        ("fid2k_full", "fid", 2000, "fid2k"),
        ("kid500_full", "kid", 500, "kid500"),
        ("pr50k3_full", "pr", 50_000, "pr50k3"),
        ("is50k", "is", 50_000, "is50k"),
        ("fid2k_random", "fid", 2000, "fid2k"),
        ("fid_random", "fid", 50_000, "fid50k"),
        ("two_faces", "two_faces", 64, "two_faces"),
    ],
)
def test_names_say_what_and_how_many(name, kind, count, stem):
    request = parse(name)
    assert (request.kind, request.count, request.stem, request.apart) == (kind, count, stem, "random" in name)


def test_a_number_of_images_is_for_names_without_one():
    requests = parse_all(("fid2k_full", "id", "fid_random"), 300)
    assert [request.count for request in requests] == [2000, 300, 300] and requests[2].stem == "fid300"
    with pytest.raises(UserError, match="--num-images would have no effect"):
        parse_all(("fid2k_full",), 300)


@pytest.mark.parametrize(
    "name", ["fid", "fid_full", "fid2m_full", "pr3_full", "pr2k_full", "ppl", "is50k_full", "fid1_full", "is9"]
)
def test_other_names_get_one_line(name):
    with pytest.raises(UserError, match="no metric is called|pictures can be compared"):
        parse(name)
