"""Small corrections of the cameras, optimised together with the latent."""

import math

import torch

import camera_utils

# Bounds of the corrections, twice as large as the usual errors of cameras from landmarks (`photo.benchmark`): rotations about
# the picture's horizontal and vertical axes in radians, and shifts to its right and down in world units, where the box has side
# 1.
BOUNDS = (math.radians(8), math.radians(4), 0.04, 0.04)


class PoseCorrection(torch.nn.Module):
    """Shifts each of k cameras in the plane of its picture, then rotates it about an axis in that plane through the origin.

    The correction is bounded and starts at zero.  Roll and distance are not corrected, because landmarks know them better than
    a generator: a single photo cannot tell a nearer head from a larger one.
    """

    def __init__(self, labels: torch.Tensor):
        """`labels` [k, 25] are those of the given cameras."""
        super().__init__()
        cam2world, _ = camera_utils.unpack_label(labels)
        self.register_buffer("across", cam2world[:, :3, :2])  # right and down in the picture
        self.register_buffer("bounds", labels.new_tensor(BOUNDS))
        self.raw = torch.nn.Parameter(labels.new_zeros([len(labels), len(BOUNDS)]))

    def forward(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the corrected labels [k, 25] as new tensors."""
        return moved(labels, self.motion())

    def motion(self) -> torch.Tensor:
        """Rigid motions [k, 4, 4] of the world's space that move the given cameras to the corrected ones."""
        parts = (self.raw.tanh() * self.bounds).split(2, dim=1)
        angles, shift = ((self.across @ part[:, :, None])[:, :, 0] for part in parts)
        return rigid(angles, shift)


def rigid(rotation_vectors: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Rigid motions [k, 4, 4]: shifts [k, 3], then rotations given by vectors [k, 3] (axis times angle in radians)."""
    x, y, z = rotation_vectors.unbind(dim=1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).reshape(-1, 3, 3)
    rotation = torch.linalg.matrix_exp(cross)
    bottom = shifts.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(shifts), 1, 4)
    return torch.cat([torch.cat([rotation, rotation @ shifts[:, :, None]], dim=2), bottom], dim=1)


def moved(labels: torch.Tensor, motion: torch.Tensor) -> torch.Tensor:
    """Apply `motion` [k or 1, 4, 4] to the cameras of labels [k, 25].  Returns new tensors."""
    cam2world, intrinsics = camera_utils.unpack_label(labels)
    return camera_utils.pack_label(motion @ cam2world, intrinsics)
