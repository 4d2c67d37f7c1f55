"""Swapped poses and backgrounds and mixed styles, compared with their definitions."""

import pytest
import torch

from training import conditioning


@pytest.fixture
def rows():
    return torch.arange(12.0).reshape(4, 3)


def test_poses_are_the_neighbours_with_probability_one_and_their_own_with_zero(rows):
    assert torch.equal(conditioning.swap_poses(rows, 1), rows.roll(1, 0))
    assert torch.equal(conditioning.swap_poses(rows, 0), rows)


def test_poses_are_swapped_sample_by_sample():
    c = torch.arange(1000.0)[:, None]
    torch.manual_seed(0)
    swapped = (conditioning.swap_poses(c, 0.7) != c).float().mean()
    assert swapped == pytest.approx(0.7, abs=0.05)


def test_swapping_poses_draws_even_at_probability_zero(rows):
    torch.manual_seed(3)
    conditioning.swap_poses(rows, 0.0)
    after = torch.rand(1)
    torch.manual_seed(3)
    torch.rand([4, 1])
    assert torch.equal(torch.rand(1), after)


def test_backgrounds_are_swapped_whole_and_draw_nothing_at_probability_zero(rows):
    ws = rows[:, None].repeat(1, 5, 1)
    assert torch.equal(conditioning.swap_backgrounds(ws, 1), ws.roll(1, 0))
    torch.manual_seed(3)
    assert conditioning.swap_backgrounds(ws, 0) is ws
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), after)


def test_mixed_styles_change_at_one_layer_for_the_whole_batch():
    ws, other = torch.zeros(4, 10, 2), torch.ones(4, 10, 2)
    firsts = set()
    for seed in range(40):
        torch.manual_seed(seed)
        mixed = conditioning.mix_styles(ws, torch.zeros(4, 8), lambda z: other, 1.0)
        profile = mixed[0, :, 0]
        assert torch.equal(mixed, profile[None, :, None].expand_as(mixed))
        first = int((profile == 0).sum())
        assert torch.equal(profile, (torch.arange(10) >= first).float())
        firsts.add(first)
    assert min(firsts) >= 1 and max(firsts) <= 9 and len(firsts) > 4


def test_styles_stay_with_probability_zero():
    ws = torch.zeros(2, 10, 2)
    assert conditioning.mix_styles(ws, torch.zeros(2, 8), lambda z: 1 / 0, 0) is ws
