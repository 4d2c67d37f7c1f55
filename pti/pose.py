"""Small corrections of the cameras, found along with the latent."""

import math

import torch

import camera_utils

# Twice as far as cameras from landmarks are usually off (`photo.benchmark`): about the picture's horizontal and vertical axis in
# radians, and in world units to its right and down; the box has side 1.
BOUNDS = (math.radians(8), math.radians(4), 0.04, 0.04)


class PoseCorrection(torch.nn.Module):
    """A shift of each of k cameras in its picture's plane, then a rotation about an axis in it through the world's origin.

    Bounded, and nothing at the start.  What landmarks know better than a generator stays: how the head leans in the picture, and
    how far away it is, since a single photo cannot tell a nearer head from a larger one.
    """

    def __init__(self, labels: torch.Tensor):
        """`labels` [k, 25] of the given cameras."""
        super().__init__()
        cam2world, _ = camera_utils.unpack_label(labels)
        self.register_buffer("across", cam2world[:, :3, :2])  # to the right and down in the picture
        self.register_buffer("bounds", labels.new_tensor(BOUNDS))
        self.raw = torch.nn.Parameter(labels.new_zeros([len(labels), len(BOUNDS)]))

    def forward(self, labels: torch.Tensor) -> torch.Tensor:
        """Labels [k, 25] -> the corrected ones, new tensors."""
        return moved(labels, self.motion())

    def motion(self) -> torch.Tensor:
        """Rigid motions of the world's space [k, 4, 4] that take the given cameras to the corrected ones."""
        parts = (self.raw.tanh() * self.bounds).split(2, dim=1)
        angles, shift = ((self.across @ part[:, :, None])[:, :, 0] for part in parts)
        return rigid(angles, shift)


def rigid(rotation_vectors: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Shifts [k, 3], then rotations about axes by angles (radians; the length of the vectors [k, 3]) -> [k, 4, 4]."""
    x, y, z = rotation_vectors.unbind(dim=1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).reshape(-1, 3, 3)
    rotation = torch.linalg.matrix_exp(cross)
    bottom = shifts.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(shifts), 1, 4)
    return torch.cat([torch.cat([rotation, rotation @ shifts[:, :, None]], dim=2), bottom], dim=1)


def moved(labels: torch.Tensor, motion: torch.Tensor) -> torch.Tensor:
    """Labels [k, 25] with their cameras carried along by `motion` [k or 1, 4, 4], as new tensors."""
    cam2world, intrinsics = camera_utils.unpack_label(labels)
    return camera_utils.pack_label(motion @ cam2world, intrinsics)
