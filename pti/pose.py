"""Small corrections of the cameras, found along with the latent."""

import math

import torch

import camera_utils

MAX_ANGLE = math.radians(6)  # of rotation about each axis of the world; a label from landmarks is within 3 to 4 degrees
MAX_SHIFT = 0.06  # world units across the line of sight; the box has side 1


class PoseCorrection(torch.nn.Module):
    """A shift of each of k cameras across its line of sight, then a rotation about the world's origin: bounded, zero at the start.

    Along the line of sight nothing moves: a single photo cannot tell a nearer head from a larger one, the landmarks that placed
    the crop can.
    """

    def __init__(self, labels: torch.Tensor):
        """`labels` [k, 25] of the given cameras."""
        super().__init__()
        cam2world, _ = camera_utils.unpack_label(labels)
        self.register_buffer("across", cam2world[:, :3, :2])  # to the right and down in the picture
        self.raw = torch.nn.Parameter(labels.new_zeros([len(labels), 5]))  # through tanh: rotation vector, shift

    def forward(self, labels: torch.Tensor) -> torch.Tensor:
        """Labels [k, 25] -> the corrected ones, new tensors."""
        return moved(labels, self.motion())

    def motion(self) -> torch.Tensor:
        """Rigid motions of the world's space [k, 4, 4] that take the given cameras to the corrected ones."""
        angles, shift = self.raw.tanh().split([3, 2], dim=1)
        return rigid(angles * MAX_ANGLE, (self.across @ (shift * MAX_SHIFT)[:, :, None])[:, :, 0])


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
