"""Typed settings of a generator, read from the `rendering_kwargs` dictionary that every checkpoint carries."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.volumetric_rendering import trigrid

ACTIVATIONS = ("sigmoid", "lrelu", "none")  # of the decoder's colours
DENSITY_CUT_MARGIN = 0.1  # world units inside the sides of the box where rays see nothing
MENDED_PLANES = "mended_planes"  # in the settings of EG3D networks whose third plane is (z, y)


@dataclass(frozen=True)
class RenderingSettings:
    """How rays are sampled and marched.  Depths and sizes are in world units."""

    depth_resolution: int = 48  # coarse samples on a ray
    depth_resolution_importance: int = 48  # fine samples on a ray, 0 for none
    ray_start: float | str = 2.25  # or 'auto': each ray's entry into the box
    ray_end: float | str = 3.3  # or 'auto': its exit
    box_warp: float = 1.0  # side of the cube that the grids span
    disparity_space_sampling: bool = False
    white_back: bool = False
    cut_margin: float | None = DENSITY_CUT_MARGIN  # None: no cut

    @classmethod
    def from_kwargs(cls, kwargs: Mapping[str, Any]) -> "RenderingSettings":
        """Read `rendering_kwargs`; ValueError for what this project does not know how to render."""
        if kwargs.get("clamp_mode", "softplus") != "softplus":
            raise ValueError(f"clamp_mode {kwargs['clamp_mode']!r} is not known, only 'softplus'")
        if (kwargs["ray_start"] == "auto") != (kwargs["ray_end"] == "auto"):
            raise ValueError("ray_start and ray_end must both be numbers or both be 'auto'")
        return cls(
            depth_resolution=int(kwargs["depth_resolution"]),
            depth_resolution_importance=int(kwargs["depth_resolution_importance"]),
            ray_start=kwargs["ray_start"],
            ray_end=kwargs["ray_end"],
            box_warp=kwargs["box_warp"],
            disparity_space_sampling=bool(kwargs.get("disparity_space_sampling", False)),
            white_back=bool(kwargs.get("white_back", False)),
            cut_margin=kwargs.get("density_cut_margin", None if is_eg3d(kwargs) else DENSITY_CUT_MARGIN),
        )


@dataclass(frozen=True)
class GridModel:
    """What a generator is made of besides its StyleGAN2 backbone."""

    triplane_size: int = 256  # pixels of a grid
    triplane_depth: int = 1  # its layers
    flat_axes: trigrid.Axes | None = None  # of EG3D's planes, which have no depth axis
    decoder_activation: str = "sigmoid"
    decoder_lr_mul: float = 1.0
    use_torgb_raw: bool = False  # a learned layer makes image_raw; otherwise the first three features are it
    use_background: bool = True
    self_adaptive_camera: bool = False  # t_mapping moves the camera (PanoHead, section 3.3)
    masked: bool = True  # the output has image_mask

    @classmethod
    def from_kwargs(cls, kwargs: Mapping[str, Any]) -> "GridModel":
        """Read `rendering_kwargs`: the one place that says how EG3D's generator differs from PanoHead's."""
        if is_eg3d(kwargs):
            return cls(
                flat_axes=trigrid.MENDED_TRIPLANE_AXES if kwargs.get(MENDED_PLANES) else trigrid.TRIPLANE_AXES,
                use_background=False,
                masked=False,
                decoder_lr_mul=kwargs.get("decoder_lr_mul", 1),
            )
        model = cls(
            triplane_size=kwargs["triplane_size"],
            triplane_depth=kwargs["triplane_depth"],
            decoder_activation=kwargs["decoder_activation"],
            decoder_lr_mul=kwargs.get("decoder_lr_mul", 1),
            use_torgb_raw=kwargs["use_torgb_raw"],
            use_background=kwargs["use_background"],
            self_adaptive_camera=kwargs.get("trans_reg", 0) > 0,
        )
        if model.decoder_activation not in ACTIVATIONS:
            raise ValueError(f"decoder_activation is one of {', '.join(ACTIVATIONS)}, not {model.decoder_activation!r}")
        return model


def is_eg3d(rendering_kwargs: Mapping[str, Any]) -> bool:
    """Whether these are the settings of EG3D's own generator, which has no tri-grid, background or mask."""
    return "triplane_depth" not in rendering_kwargs
