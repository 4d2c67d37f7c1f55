"""StyleGAN2's generator, and all of its parts by the name of the module that snapshots and scripts of the family import."""

import torch

from torch_utils import persistence
from training.discriminator_blocks import DiscriminatorBlock, DiscriminatorEpilogue, MinibatchStdLayer
from training.layers import Conv2dLayer, FullyConnectedLayer, modulated_conv2d, normalize_second_moment
from training.mapping_network import MappingNetwork
from training.synthesis_network import SynthesisBlock, SynthesisLayer, SynthesisNetwork, ToRGBLayer

__all__ = [
    "Conv2dLayer",
    "DiscriminatorBlock",
    "DiscriminatorEpilogue",
    "FullyConnectedLayer",
    "Generator",
    "MappingNetwork",
    "MinibatchStdLayer",
    "SynthesisBlock",
    "SynthesisLayer",
    "SynthesisNetwork",
    "ToRGBLayer",
    "modulated_conv2d",
    "normalize_second_moment",
]


@persistence.persistent_class
class Generator(torch.nn.Module):
    """Mapping and synthesis together: z [N, z_dim] and label [N, c_dim] -> pictures."""

    def __init__(self, z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs=None, **synthesis_kwargs):
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **synthesis_kwargs)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, **(mapping_kwargs or {}))

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False, **synthesis_kwargs):
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff, update_emas)
        return self.synthesis(ws, **synthesis_kwargs)
