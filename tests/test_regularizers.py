"""Each regulariser on fields and networks with a known answer."""

import pytest
import torch

from training import regularizers

CPU = torch.device("cpu")


def terms(kind, density, weight=1.0, distance=0.1, box_warp=1.0):
    torch.manual_seed(0)
    return regularizers.density_terms(kind, density, 2, weight, distance, box_warp, CPU)


def test_r1_of_a_linear_critic_is_its_squared_weight():
    weight = torch.tensor([[3.0, 4.0]])
    x = torch.randn(5, 2, requires_grad=True)
    (penalty,) = regularizers.squared_gradients(x @ weight.T, [x])
    assert penalty == pytest.approx(torch.full([5], 25.0))


def test_r1_is_per_sample_and_differentiable():
    x = torch.tensor([[1.0], [2.0]], requires_grad=True)
    (penalty,) = regularizers.squared_gradients((x**2).sum(dim=1), [x])
    assert penalty.tolist() == pytest.approx([4.0, 16.0])
    (second,) = torch.autograd.grad(penalty.sum(), [x])
    assert second.flatten().tolist() == pytest.approx([8.0, 16.0])  # d(4x²)/dx


def test_translation_counts_the_mean_shift_only():
    opposite = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    assert regularizers.mean_translation(opposite) == 0
    assert regularizers.mean_translation(opposite + torch.tensor([0.0, 3.0, 4.0])) == pytest.approx(25)


def test_l1_is_nothing_for_a_constant_and_the_slope_for_a_ramp():
    assert terms("l1", lambda p: torch.ones_like(p[..., :1]))["l1"] == 0
    # |x - x'| of a normal step of deviation s has the mean s·sqrt(2/π).
    slope = terms("l1", lambda p: 5 * p[..., :1], weight=2.0, distance=0.1)["l1"]
    assert slope == pytest.approx(2 * 5 * 0.1 * (2 / torch.pi) ** 0.5, rel=0.05)


@pytest.mark.parametrize("kind", ["monotonic-detach", "monotonic-fixed"])
def test_monotonic_punishes_only_a_density_that_falls_to_the_back(kind):
    """Densities may grow from the viewer (z high) into the head, and not fall."""
    assert terms(kind, lambda p: -5 * p[..., 2:])["monotonic"] == 0
    falling = terms(kind, lambda p: 5 * p[..., 2:], box_warp=2.0)["monotonic"]
    assert falling == pytest.approx(10 * 5 * 2 / 256, rel=1e-4)


def test_monotonic_detach_moves_the_point_behind_only():
    for kind, expected in (("monotonic-detach", False), ("monotonic-fixed", True)):
        seen = []

        def density(p):
            sigma = (5 * p[..., 2:]).detach().requires_grad_()
            seen.append(sigma)
            return sigma

        terms(kind, density)["monotonic"].backward()
        front, behind = seen[0].grad.chunk(2, dim=1)
        assert behind.abs().sum() > 0
        assert bool(front.abs().sum() > 0) == expected


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="total-variation"):
        terms("total-variation", lambda p: p[..., :1])
