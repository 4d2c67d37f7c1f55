"""The 3D-aware generator: a backbone makes grids, rays make features, super-resolution makes the picture.

PanoHead's tri-grid generator (An 2023) and, by its own settings, EG3D's (Chan 2022); `GridModel` says what differs.
"""

import weakref
from typing import NamedTuple

import torch

import camera_utils
from dnnlib import EasyDict
from dnnlib.util import construct_class_by_name
from torch_utils import persistence
from torch_utils.ops import softplus_mlp
from training.layers import FullyConnectedLayer, scaled_weights
from training.mapping_network import MappingNetwork
from training.networks_stylegan2 import Generator
from training.rendering_settings import GridModel, RenderingSettings
from training.superresolution import resize
from training.synthesis_network import SynthesisNetwork, ToRGBLayer
from training.volumetric_rendering import ray_sampler, renderer, trigrid
from training.volumetric_rendering.ray_marcher import March

DEFAULT_RENDERING_RESOLUTION = 64


class Face(NamedTuple):
    """What is the same in all views of one batch of faces; hold it to render many views."""

    ws: torch.Tensor  # [N, num_ws, w_dim]
    grids: torch.Tensor  # [N, 3, 32, D, H, W]
    background: torch.Tensor | None  # features [N, 32, B, B] behind the head


@persistence.persistent_class
class OSGDecoder(torch.nn.Module):
    """A point's features to its density and colour."""

    activation = "sigmoid"  # EG3D's snapshots hold an object of this class by its name, without this attribute

    def __init__(self, n_features, options):
        super().__init__()
        self.activation = options["decoder_activation"]
        hidden, lr_multiplier = 64, options["decoder_lr_mul"]
        self.net = torch.nn.Sequential(
            FullyConnectedLayer(n_features, hidden, lr_multiplier=lr_multiplier),
            torch.nn.Softplus(),
            FullyConnectedLayer(hidden, 1 + options["decoder_output_dim"], lr_multiplier=lr_multiplier),
        )

    def decode(self, features):
        """Features [N, M, n_features] -> density [N, M, 1] before softplus, and colour features [N, M, out]."""
        batch, points, channels = features.shape
        out = softplus_mlp.softplus_mlp(features.reshape(batch * points, channels), *self.layers())
        return self.split(out.reshape(batch, points, -1))

    def layers(self):
        """w1 [64, n_features], b1 [64], w2 [1 + out, 64], b2 [1 + out] of the two layers with softplus between."""
        first, _, last = self.net
        return *scaled_weights(first), *scaled_weights(last)

    def split(self, out):
        """What the layers make of points, [N, M, 1 + out], as density and colour features."""
        sigma, rgb = out[..., :1], out[..., 1:]
        if self.activation == "sigmoid":
            rgb = torch.sigmoid(rgb) * 1.002 - 0.001  # saturation without vanishing gradients (Barron 2021, mip-NeRF)
        elif self.activation == "lrelu":
            rgb = torch.nn.functional.leaky_relu(rgb, 0.2) * 2**0.5
        return sigma, rgb

    def forward(self, sampled_features, ray_directions):
        """`decode` for the text inside published snapshots: features [N, planes, M, n_features], of which it takes the mean."""
        sigma, rgb = self.decode(sampled_features.mean(1))
        return dict(sigma=sigma, rgb=rgb)


_KEPT_GRIDS = weakref.WeakKeyDictionary()  # of generators; outside of them, so that no snapshot stores the grids


@persistence.persistent_class
class TriPlaneGenerator(torch.nn.Module):
    """z [N, z_dim] and camera label c [N, 25] -> pictures of heads.

    `rendering_kwargs` stays a plain dictionary that scripts read and change (`ray_start`, sample counts);
    `neural_rendering_resolution` is the size of raw pictures where none is asked for.
    """

    def __init__(
        self,
        z_dim,
        c_dim,
        w_dim,
        img_resolution,
        img_channels,
        sr_num_fp16_res=0,
        mapping_kwargs=None,
        rendering_kwargs=None,
        sr_kwargs=None,
        **synthesis_kwargs,
    ):
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.rendering_kwargs = EasyDict(rendering_kwargs)
        self.neural_rendering_resolution = DEFAULT_RENDERING_RESOLUTION
        model = self.grid_model
        mapping_kwargs = dict(mapping_kwargs or {})
        channels = trigrid.GRID_CHANNELS

        self.backbone = Generator(
            z_dim,
            c_dim,
            w_dim,
            img_resolution=model.triplane_size,
            img_channels=3 * channels * model.triplane_depth,
            mapping_kwargs=mapping_kwargs,
            **synthesis_kwargs,
        )
        self.superresolution = construct_class_by_name(
            class_name=self.rendering_kwargs.superresolution_module,
            channels=channels,
            img_resolution=img_resolution,
            sr_num_fp16_res=sr_num_fp16_res,
            sr_antialias=self.rendering_kwargs.sr_antialias,
            w_dim=w_dim,
            **(sr_kwargs or {}),
        )
        decoder_options = dict(
            decoder_lr_mul=model.decoder_lr_mul, decoder_output_dim=channels, decoder_activation=model.decoder_activation
        )
        self.decoder = OSGDecoder(channels, decoder_options)
        if model.use_torgb_raw:
            self.torgb = ToRGBLayer(channels, img_channels, w_dim)
        if model.use_background:
            kwargs = dict(synthesis_kwargs, channel_base=synthesis_kwargs.get("channel_base", 32768) // 2)
            self.bcg_synthesis = SynthesisNetwork(
                w_dim, self.superresolution.layout.input_resolution, img_channels=channels, **kwargs
            )
        if model.self_adaptive_camera:
            self.t_mapping = MappingNetwork(
                z_dim, c_dim, 3, num_ws=1, lr_multiplier=1, last_activation="linear", **mapping_kwargs
            )
            # Cameras start where the labels put them; a random shift would be as large as the box.
            last = getattr(self.t_mapping, f"fc{self.t_mapping.num_layers - 1}")
            torch.nn.init.zeros_(last.weight)

    @property
    def grid_model(self) -> GridModel:
        """What the network is made of.  Not an attribute: snapshots hold plain values, no classes of this project by name."""
        return GridModel.from_kwargs(self.rendering_kwargs)

    def _as_weights(self, *tensors):
        """The tensors in the type of the weights: what a caller computed in float64 gives the picture of float32."""
        dtype = self.decoder.net[0].weight.dtype
        return [tensor.to(dtype) for tensor in tensors]

    # Labels and latents

    def conditioning_label(self, c):
        """The label [N, 25] as the mapping networks see it: scaled, or zeros."""
        if self.rendering_kwargs.c_gen_conditioning_zero:
            return torch.zeros_like(c)
        return c * self.rendering_kwargs.get("c_scale", 0)  # settings without it belong to networks that ignore the label

    def mapping(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False):
        """z [N, z_dim], label c [N, 25] -> ws [N, num_ws, w_dim], pulled toward the mean by `truncation_psi`."""
        z, c = self._as_weights(z, c)
        return self.backbone.mapping(z, self.conditioning_label(c), truncation_psi, truncation_cutoff, update_emas)

    def apply_delta_c(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False):
        """Self-adaptive camera alignment (An 2023, section 3.3): (labels moved by the shift, shift [N, 3]).

        The shift is zero in a generator without `t_mapping`.
        """
        z, c = self._as_weights(z, c)
        if not self.grid_model.self_adaptive_camera:
            return c, c.new_zeros([c.shape[0], 3])
        shift = self.t_mapping(z, self.conditioning_label(c), truncation_psi, truncation_cutoff, update_emas)[:, 0]
        return camera_utils.shift_label(c, shift), shift

    # The parts of a picture, in the order in which they draw random numbers

    def make_grids(self, ws, **synthesis_kwargs):
        """ws [N, num_ws, w_dim] -> the face's grids [N, 3, 32, D, H, W]."""
        (ws,) = self._as_weights(ws)
        planes = self.backbone.synthesis(ws, **synthesis_kwargs)
        return trigrid.split_planes(planes, self.grid_model.triplane_depth)

    def make_background(self, ws, **synthesis_kwargs):
        """ws [N, any, w_dim] -> features [N, 32, B, B] of what is behind the head, or None."""
        if not self.grid_model.use_background:
            return None
        (ws,) = self._as_weights(ws)
        missing = self.bcg_synthesis.num_ws - ws.shape[1]
        ws = torch.cat([ws, ws[:, -1:].expand(-1, max(missing, 0), -1)], dim=1)
        return self.bcg_synthesis(ws[:, : self.bcg_synthesis.num_ws], **synthesis_kwargs)

    def query(self, grids, points, density_noise=0):
        """Density [N, M, 1] before softplus and features [N, M, 32] at points [N, M, 3] in world units."""
        (points,) = self._as_weights(points)
        sigma, rgb = self.decoder.split(self._decoded(grids, points, self.decoder.layers()))
        return renderer.add_density_noise(sigma, density_noise), rgb

    def density(self, grids, points):
        """The density of `query` alone: colours, most of the decoder's work, are not computed."""
        w1, b1, w2, b2 = self.decoder.layers()
        return self._decoded(grids, points, (w1, b1, w2[:1], b2[:1]))

    def _decoded(self, grids, points, layers):
        return trigrid.sample_decoded(grids, points, self.rendering_kwargs.box_warp, layers, self.grid_model.flat_axes)

    def _density_noise(self, density_noise):
        """`density_noise`, or for None what published training left in the snapshots of its first images."""
        return self.rendering_kwargs.get("density_noise", 0) if density_noise is None else density_noise

    def march(self, grids, c, resolution, density_noise=None) -> March:
        """What the cameras c [N, 25] see of the head alone, ray by ray; `resolution`² rays."""
        cam2world, intrinsics = camera_utils.unpack_label(*self._as_weights(c))
        origins, directions = ray_sampler.sample_rays(cam2world, intrinsics, resolution)
        settings, noise = RenderingSettings.from_kwargs(self.rendering_kwargs), self._density_noise(density_noise)
        return renderer.render_rays(lambda p: self.query(grids, p), origins, directions, settings, noise)

    def compose(self, ws, seen: March, background, **synthesis_kwargs):
        """Head in front of background, then super-resolution: the dictionary that `synthesis` returns."""
        (ws,) = self._as_weights(ws)
        size = int(round(seen.depth.shape[1] ** 0.5))

        def as_picture(rays):
            return rays.mT.reshape(rays.shape[0], rays.shape[2], size, size).contiguous()

        features, depth, opacity = map(as_picture, seen[:3])
        if self.grid_model.decoder_activation == "sigmoid":
            features = features * 2 - 1
        if background is not None:
            antialias = self.rendering_kwargs.sr_antialias
            features = features + (1 - opacity) * resize(background, size, antialias)
        if self.grid_model.use_torgb_raw:
            fused = synthesis_kwargs.get("fused_modconv")
            fused = not self.training if fused is None else fused
            image_raw = self.torgb(features, ws[:, -1], fused_modconv=fused)
        else:
            image_raw = features[:, : self.img_channels]
        synthesis_kwargs["noise_mode"] = self.rendering_kwargs.superresolution_noise_mode
        image = self.superresolution(image_raw, features, ws, **synthesis_kwargs)
        result = dict(image=image, image_raw=image_raw, image_depth=depth)
        if self.grid_model.masked:
            result["image_mask"] = opacity * 1.002 - 0.001
        return result

    # For scripts that render by hand

    @property
    def ray_sampler(self):
        """(cam2world [N, 4, 4], intrinsics [N, 3, 3], resolution) -> origins and directions [N, R, 3]."""
        return ray_sampler.RaySampler()

    @property
    def renderer(self):
        """(planes, decoder, origins, directions, rendering_kwargs) -> features, depth and sum of weights of each ray."""
        return renderer.ImportanceRenderer()

    # Whole pictures

    def synthesis(
        self,
        ws,
        c,
        neural_rendering_resolution=None,
        ws_bcg=None,
        density_noise=None,
        update_emas=False,
        cache_backbone=False,
        use_cached_backbone=False,
        **synthesis_kwargs,
    ):
        """Pictures of the faces ws [N, num_ws, w_dim] from the cameras c [N, 25] (used as they are).

        Returns `image` [N, 3, H, H] and `image_raw` [N, 3, h, h] in about [-1, 1], `image_depth` [N, 1, h, h] in world
        units along the ray, and, but for EG3D's networks, `image_mask` [N, 1, h, h] in about [0, 1].  `ws_bcg` makes the
        background, `ws` where it is None.  Other arguments, such as `noise_mode`, go to the synthesis networks.

        For scripts of this family: `cache_backbone` keeps the grids of `ws`, and a later call with `use_cached_backbone`
        renders those whatever its ws.  `update_emas` concerns the mapping alone; synthesis keeps no averages.
        """
        grids = _KEPT_GRIDS.get(self) if use_cached_backbone else None
        if grids is None:
            grids = self.make_grids(ws, **synthesis_kwargs)
        if cache_backbone:
            _KEPT_GRIDS[self] = grids
        seen = self.march(grids, c, neural_rendering_resolution or self.neural_rendering_resolution, density_noise)
        background = self.make_background(ws if ws_bcg is None else ws_bcg, **synthesis_kwargs)
        return self.compose(ws, seen, background, **synthesis_kwargs)

    def prepare(self, ws, ws_bcg=None, **synthesis_kwargs) -> Face:
        """Compute once what all views of the faces `ws` share; see `render`."""
        background = self.make_background(ws if ws_bcg is None else ws_bcg, **synthesis_kwargs)
        return Face(ws, self.make_grids(ws, **synthesis_kwargs), background)

    def render(self, face: Face, c, neural_rendering_resolution=None, **synthesis_kwargs):
        """One more view of `face` from the cameras c [N, 25]: what `synthesis` returns."""
        seen = self.march(face.grids, c, neural_rendering_resolution or self.neural_rendering_resolution)
        return self.compose(face.ws, seen, face.background, **synthesis_kwargs)

    def sample_mixed(
        self,
        coordinates,
        directions,
        ws,
        truncation_psi=1,
        truncation_cutoff=None,
        update_emas=False,
        density_noise=None,
        **synthesis_kwargs,
    ):
        """`sigma` [N, M, 1] (before softplus) and `rgb` features [N, M, 32] at coordinates [N, M, 3] of the faces ws.

        The field does not depend on `directions`.  Densities are those of the whole box: nothing is cut off.  Truncation and
        `update_emas` concern the mapping, which has made ws already; they are there for scripts that pass them.
        """
        noise = self._density_noise(density_noise)
        sigma, rgb = self.query(self.make_grids(ws, **synthesis_kwargs), coordinates, noise)
        return dict(sigma=sigma, rgb=rgb)

    def sample(
        self, coordinates, directions, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False, **synthesis_kwargs
    ):
        """`sample_mixed` for the faces of z [N, z_dim] and label c [N, 25]."""
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff, update_emas)
        return self.sample_mixed(coordinates, directions, ws, **synthesis_kwargs)

    def forward(
        self,
        z,
        c,
        truncation_psi=1,
        truncation_cutoff=None,
        neural_rendering_resolution=None,
        update_emas=False,
        **synthesis_kwargs,
    ):
        """Pictures of z [N, z_dim] from the camera c [N, 25], which also conditions the mapping; see `synthesis`."""
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff, update_emas)
        c, _ = self.apply_delta_c(z, c, truncation_psi, truncation_cutoff, update_emas)
        return self.synthesis(ws, c, neural_rendering_resolution, **synthesis_kwargs)
