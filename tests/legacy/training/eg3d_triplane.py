"""EG3D's generator in old projects of the family.  See write_snapshots.py."""

import torch

import dnnlib
from torch_utils import persistence
from training.networks_stylegan2 import FullyConnectedLayer, Generator as StyleGAN2Backbone
from training.volumetric_rendering.ray_sampler import RaySampler
from training.volumetric_rendering.renderer import ImportanceRenderer


@persistence.persistent_class
class TriPlaneGenerator(torch.nn.Module):
    def __init__(
        self, z_dim, c_dim, w_dim, img_resolution, img_channels, sr_num_fp16_res=0, mapping_kwargs={}, rendering_kwargs={},
        sr_kwargs={}, **synthesis_kwargs,
    ):  # fmt: skip
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.renderer = ImportanceRenderer()
        self.ray_sampler = RaySampler()
        self.backbone = StyleGAN2Backbone(
            z_dim, c_dim, w_dim, img_resolution=256, img_channels=96, mapping_kwargs=mapping_kwargs, **synthesis_kwargs
        )
        self.superresolution = dnnlib.util.construct_class_by_name(
            class_name=rendering_kwargs["superresolution_module"], channels=32, img_resolution=img_resolution, w_dim=w_dim,
            sr_num_fp16_res=sr_num_fp16_res, sr_antialias=rendering_kwargs["sr_antialias"],
        )  # fmt: skip
        self.decoder = OSGDecoder(32, {"decoder_lr_mul": rendering_kwargs.get("decoder_lr_mul", 1), "decoder_output_dim": 32})
        self.neural_rendering_resolution = 64
        self.rendering_kwargs = rendering_kwargs
        self._last_planes = None

    def mapping(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False):
        if self.rendering_kwargs["c_gen_conditioning_zero"]:
            c = torch.zeros_like(c)
        c = c * self.rendering_kwargs.get("c_scale", 0)
        return self.backbone.mapping(z, c, truncation_psi, truncation_cutoff, update_emas=update_emas)

    def planes(self, ws, **synthesis_kwargs):
        planes = self.backbone.synthesis(ws, **synthesis_kwargs)
        return planes.view(len(planes), 3, 32, planes.shape[-2], planes.shape[-1])

    def synthesis(self, ws, c, neural_rendering_resolution=None, **synthesis_kwargs):
        size = neural_rendering_resolution or self.neural_rendering_resolution
        origins, directions = self.ray_sampler(c[:, :16].view(-1, 4, 4), c[:, 16:25].view(-1, 3, 3), size)
        planes = self.planes(ws, **synthesis_kwargs)
        seen = self.renderer(planes, self.decoder, origins, directions, self.rendering_kwargs)
        features, depth, _ = (x.permute(0, 2, 1).reshape(len(x), -1, size, size) for x in seen)
        raw = features[:, :3]
        synthesis_kwargs["noise_mode"] = self.rendering_kwargs["superresolution_noise_mode"]
        image = self.superresolution(raw, features, ws, **synthesis_kwargs)
        return {"image": image, "image_raw": raw, "image_depth": depth}

    def sample(self, coordinates, directions, z, c, **synthesis_kwargs):
        planes = self.planes(self.mapping(z, c), **synthesis_kwargs)
        return self.renderer.run_model(planes, self.decoder, coordinates, directions, self.rendering_kwargs)

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, neural_rendering_resolution=None, **synthesis_kwargs):
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff)
        return self.synthesis(ws, c, neural_rendering_resolution, **synthesis_kwargs)


class OSGDecoder(torch.nn.Module):
    def __init__(self, n_features, options):
        super().__init__()
        self.hidden_dim = 64
        self.net = torch.nn.Sequential(
            FullyConnectedLayer(n_features, 64, lr_multiplier=options["decoder_lr_mul"]),
            torch.nn.Softplus(),
            FullyConnectedLayer(64, 1 + options["decoder_output_dim"], lr_multiplier=options["decoder_lr_mul"]),
        )
