"""StyleGAN2's mapping network: latents and camera labels to w (Karras 2020)."""

import torch

from torch_utils import misc, persistence
from training.layers import FullyConnectedLayer, normalize_second_moment


@persistence.persistent_class
class MappingNetwork(torch.nn.Module):
    """z [N, z_dim] and label [N, c_dim] -> w [N, num_ws, w_dim], or [N, w_dim] where num_ws is None.

    `last_activation` and `lr_multiplier` are those of the paper unless given.  `w_avg_beta` None: w is not tracked.
    """

    def __init__(
        self,
        z_dim,
        c_dim,
        w_dim,
        num_ws,
        num_layers=8,
        embed_features=None,
        layer_features=None,
        activation="lrelu",
        lr_multiplier=0.01,
        w_avg_beta=0.998,
        last_activation=None,
    ):
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.num_ws = num_ws
        self.num_layers = num_layers
        self.w_avg_beta = w_avg_beta
        embed_features = (w_dim if embed_features is None else embed_features) if c_dim > 0 else 0
        layer_features = w_dim if layer_features is None else layer_features
        widths = [z_dim + embed_features] + [layer_features] * (num_layers - 1) + [w_dim]
        if c_dim > 0:
            self.embed = FullyConnectedLayer(c_dim, embed_features)
        for index in range(num_layers):
            last = index == num_layers - 1
            act = last_activation if last and last_activation is not None else activation
            layer = FullyConnectedLayer(widths[index], widths[index + 1], activation=act, lr_multiplier=lr_multiplier)
            setattr(self, f"fc{index}", layer)
        if num_ws is not None and w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros([w_dim]))

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False):
        inputs = []
        if self.z_dim > 0:
            misc.assert_shape(z, [None, self.z_dim])
            inputs.append(normalize_second_moment(z.to(torch.float32)))
        if self.c_dim > 0:
            misc.assert_shape(c, [None, self.c_dim])
            inputs.append(normalize_second_moment(self.embed(c.to(torch.float32))))
        x = torch.cat(inputs, dim=1)
        for index in range(self.num_layers):
            x = getattr(self, f"fc{index}")(x)
        if update_emas:
            self.track(x.detach().mean(dim=0))
        if self.num_ws is not None:
            x = x[:, None].repeat(1, self.num_ws, 1)
        if truncation_psi != 1:
            # Toward the mean face, in the first `truncation_cutoff` rows or in all (Karras 2019, appendix B).
            cutoff = x.shape[1] if truncation_cutoff is None else truncation_cutoff
            x = torch.cat([self.w_avg.lerp(x[:, :cutoff], truncation_psi), x[:, cutoff:]], dim=1)
        return x

    @torch.no_grad()
    def track(self, w_mean):
        """Move the running mean of w toward `w_mean` [w_dim]."""
        if self.w_avg_beta is not None and self.num_ws is not None:
            self.w_avg.copy_(w_mean.lerp(self.w_avg, self.w_avg_beta))
