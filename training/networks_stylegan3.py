"""The one name of StyleGAN3's networks that the text inside published snapshots imports, and never uses."""

import torch


class SynthesisLayer(torch.nn.Module):
    """Stands for StyleGAN3's layer, which this project does not have: NotImplementedError when one is made."""

    def __init__(self, *args, **kwargs):
        raise NotImplementedError("StyleGAN3's layers are not part of this project; it has those of StyleGAN2")
