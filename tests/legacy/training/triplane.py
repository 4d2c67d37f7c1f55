"""The tri-grid generator of old projects in the family's format.  See write_snapshots.py."""

import copy

import torch

import dnnlib
from torch_utils import misc, persistence
from training.dual_discriminator import filtered_resizing
from training.networks_stylegan2 import (
    FullyConnectedLayer,
    Generator as StyleGAN2Backbone,
    MappingNetwork,
    SynthesisNetwork,
    ToRGBLayer,
)
from training.volumetric_rendering.ray_sampler import RaySampler
from training.volumetric_rendering.renderer import ImportanceRenderer

persistence.import_hook(lambda meta: meta)


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
        size, depth = rendering_kwargs["triplane_size"], rendering_kwargs["triplane_depth"]
        self.backbone = StyleGAN2Backbone(
            z_dim, c_dim, w_dim, img_resolution=size, img_channels=96 * depth, mapping_kwargs=mapping_kwargs, **synthesis_kwargs
        )
        self.superresolution = dnnlib.util.construct_class_by_name(
            class_name=rendering_kwargs["superresolution_module"], channels=32, img_resolution=img_resolution, w_dim=w_dim,
            sr_num_fp16_res=sr_num_fp16_res, sr_antialias=rendering_kwargs["sr_antialias"],
        )  # fmt: skip
        options = dict(decoder_lr_mul=1, decoder_output_dim=32, decoder_activation=rendering_kwargs["decoder_activation"])
        self.decoder = OSGDecoder(32, options)
        self.torgb = ToRGBLayer(32, 3, w_dim) if rendering_kwargs.get("use_torgb_raw") else None
        bcg_kwargs = copy.deepcopy(synthesis_kwargs)
        bcg_kwargs["channel_base"] = bcg_kwargs["channel_base"] // 2
        self.bcg_synthesis = SynthesisNetwork(w_dim, self.superresolution.input_resolution, img_channels=32, **bcg_kwargs)
        self.t_mapping = MappingNetwork(z_dim, c_dim, 3, num_ws=1, lr_multiplier=1, last_activation="linear", **mapping_kwargs)
        self.neural_rendering_resolution = 64
        self.rendering_kwargs = rendering_kwargs
        self._last_planes = None

    def label(self, c):
        if self.rendering_kwargs["c_gen_conditioning_zero"]:
            c = torch.zeros_like(c)
        return c * self.rendering_kwargs.get("c_scale", 0)

    def mapping(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False):
        return self.backbone.mapping(z, self.label(c), truncation_psi, truncation_cutoff, update_emas=update_emas)

    def apply_delta_c(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False):
        shift = self.t_mapping(z, self.label(c), truncation_psi, truncation_cutoff, update_emas).squeeze(1)
        c = c.clone()
        c[:, [3, 7, 11]] += shift
        return c, shift

    def synthesis(
        self, ws, c, neural_rendering_resolution=None, update_emas=False, cache_backbone=False, use_cached_backbone=False,
        ws_bcg=None, **synthesis_kwargs,
    ):  # fmt: skip
        cam2world, intrinsics = c[:, :16].view(-1, 4, 4), c[:, 16:25].view(-1, 3, 3)
        if neural_rendering_resolution is None:
            neural_rendering_resolution = self.neural_rendering_resolution
        origins, directions = self.ray_sampler(cam2world, intrinsics, neural_rendering_resolution)
        if use_cached_backbone and self._last_planes is not None:
            planes = self._last_planes
        else:
            planes = self.backbone.synthesis(ws, update_emas=update_emas, **synthesis_kwargs)
        if cache_backbone:
            self._last_planes = planes
        planes = planes.view(len(planes), 3, -1, planes.shape[-2], planes.shape[-1])
        features, depth, opacity = self.renderer(planes, self.decoder, origins, directions, self.rendering_kwargs)

        def picture(x):
            return x.permute(0, 2, 1).reshape(len(x), -1, neural_rendering_resolution, neural_rendering_resolution)

        features, opacity = picture(features).contiguous(), picture(opacity)
        if self.decoder.activation == "sigmoid":
            features = features * 2 - 1
        ws_bcg = (ws if ws_bcg is None else ws_bcg)[:, : self.bcg_synthesis.num_ws]
        if ws_bcg.shape[1] < self.bcg_synthesis.num_ws:
            ws_bcg = torch.cat([ws_bcg, ws_bcg[:, -1:].repeat(1, self.bcg_synthesis.num_ws - ws_bcg.shape[1], 1)], dim=1)
        background = self.bcg_synthesis(ws_bcg, update_emas=update_emas, **synthesis_kwargs)
        background = filtered_resizing(background, size=neural_rendering_resolution, f=None, filter_mode="antialiased")
        features = features + (1 - opacity) * background
        raw = features[:, :3] if self.torgb is None else self.torgb(features, ws[:, -1], fused_modconv=False)
        synthesis_kwargs["noise_mode"] = self.rendering_kwargs["superresolution_noise_mode"]
        image = self.superresolution(raw, features, ws, **synthesis_kwargs)
        mask = opacity * (1 + 2 * 0.001) - 0.001
        return {"image": image, "image_raw": raw, "image_depth": picture(depth), "image_mask": mask}

    def sample_mixed(self, coordinates, directions, ws, update_emas=False, **synthesis_kwargs):
        planes = self.backbone.synthesis(ws, update_emas=update_emas, **synthesis_kwargs)
        planes = planes.view(len(planes), 3, -1, planes.shape[-2], planes.shape[-1])
        return self.renderer.run_model(planes, self.decoder, coordinates, directions, self.rendering_kwargs)

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, neural_rendering_resolution=None, **synthesis_kwargs):
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff)
        c, _ = self.apply_delta_c(z, c, truncation_psi, truncation_cutoff)
        return self.synthesis(ws, c, neural_rendering_resolution, **synthesis_kwargs)

    def trainable_size(self):
        return sum(tensor.numel() for _, tensor in misc.named_params_and_buffers(self))

    def copied(self):
        twin = copy.deepcopy(self)
        misc.copy_params_and_buffers(self, twin, require_all=True)
        return twin


@persistence.persistent_class
class OSGDecoder(torch.nn.Module):
    def __init__(self, n_features, options):
        super().__init__()
        self.hidden_dim = 64
        self.activation = options["decoder_activation"]
        self.net = torch.nn.Sequential(
            FullyConnectedLayer(n_features, 64, lr_multiplier=options["decoder_lr_mul"]),
            torch.nn.Softplus(),
            FullyConnectedLayer(64, 1 + options["decoder_output_dim"], lr_multiplier=options["decoder_lr_mul"]),
        )

    def forward(self, sampled_features, ray_directions):
        x = sampled_features.mean(1)
        batch, points, channels = x.shape
        x = self.net(x.view(batch * points, channels)).view(batch, points, -1)
        rgb = x[..., 1:]
        if self.activation == "sigmoid":
            rgb = torch.sigmoid(rgb) * (1 + 2 * 0.001) - 0.001
        elif self.activation == "lrelu":
            rgb = torch.nn.functional.leaky_relu(rgb, 0.2) * 2**0.5
        return {"rgb": rgb, "sigma": x[..., 0:1]}
