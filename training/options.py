"""The options of a training run with their types and defaults, and the tables of presets that change those."""

from dataclasses import dataclass
from typing import Any

from metrics.requests import EFFICIENTNET

# Presets of --cfg: where the cameras are, and how rays are sampled.
_PORTRAIT = dict(
    depth_resolution=48,
    depth_resolution_importance=48,
    ray_start=2.25,
    ray_end=3.3,
    box_warp=1,
    avg_camera_radius=2.7,
)
SCENES = {
    "ffhq": dict(_PORTRAIT, avg_camera_pivot=[0, 0, 0.2]),
    "afhq": dict(_PORTRAIT, avg_camera_pivot=[0, 0, -0.06]),
    "shapenet": dict(
        depth_resolution=64,
        depth_resolution_importance=64,
        ray_start=0.1,
        ray_end=2.6,
        box_warp=1.6,
        white_back=True,
        avg_camera_radius=1.7,
        avg_camera_pivot=[0, 0, 0],
    ),
}

# Sizes that a CPU renders in a fraction of a second.
_COARSE = dict(
    triplane_size=64,
    depth_resolution=16,
    depth_resolution_importance=16,
    neural_rendering_resolution_initial=32,
    workers=1,
)
# Presets of --preset: other defaults, for smaller machines.  Options on the command line override them.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "small": dict(
        cbase=16384,
        cmax=256,
        depth_resolution=32,
        depth_resolution_importance=32,
        light_sr=True,
    ),
    "cpu": dict(
        _COARSE,
        cbase=2048,
        cmax=64,
        light_sr=True,
    ),
    "heads": dict(  # a whole recipe for the shipped set of rendered heads, from all sides, at 128 pixels
        _COARSE,
        cbase=3072,
        cmax=96,
        triplane_depth=3,
        g_const_resolution=32,  # a backbone this small finds where eyes are much sooner than from 4 pixels
        sr_module="SuperresolutionSlim2X",
        use_torgb_raw=True,
        decoder_activation="none",
        disc_module="MaskDualDiscriminatorV2",
        mirror=True,
        bcg_reg_prob=0.2,
        trans_reg=10,
        density_reg=0,
        blur_fade_kimg=20,
    ),
}
DISCRIMINATORS = ("MaskDualDiscriminator", "MaskDualDiscriminatorV2")


@dataclass(frozen=True, kw_only=True)
class Options:
    """One field for each option of train.py, of the same name, whose help says what it means."""

    # Paths and required options
    outdir: str
    cfg: str
    img_data: str
    seg_data: str
    gpus: int
    batch: int
    gamma: float
    gamma_seg: float
    preset: str = "paper"
    device: str = "auto"
    desc: str | None = None
    metrics: tuple[str, ...] = ()
    metric_views: tuple[str, ...] = ("all",)
    detector: str = EFFICIENTNET
    embedder: str | None = None

    # Data
    cond: bool = True
    mirror: bool = False
    min_yaw: float = 0.0
    max_yaw: float = 180.0
    back_repeat: int = 1
    workers: int = 3
    accept_data: bool = False

    # Augmentation
    aug: str = "noaug"
    p: float = 0.2
    target: float = 0.6

    # Transfer
    resume: str | None = None
    resume_kimg: int = 0
    resume_blur: bool = False
    freezed: int = 0
    trust_pickle: bool = False

    # Length and records
    kimg: float = 25000
    minutes: float | None = None
    tick: float = 4
    snap: int = 50
    seed: int = 0
    nobench: bool = False

    # Optimisation
    batch_gpu: int | None = None
    mbstd_group: int = 4
    glr: float = 0.0025
    dlr: float = 0.002

    # Generator
    cbase: int = 32768
    cmax: int = 512
    map_depth: int = 2
    g_architecture: str = "skip"
    g_const_resolution: int = 4
    g_num_fp16_res: int = 0
    triplane_size: int = 256
    triplane_depth: int = 1
    decoder_lr_mul: float = 1.0
    decoder_activation: str = "sigmoid"
    use_torgb_raw: bool = False
    use_background: bool = True
    sr_module: str | None = None
    light_sr: bool = False
    sr_noise_mode: str = "none"
    sr_num_fp16_res: int = 4
    c_scale: float = 1.0
    gen_pose_cond: bool = False
    trans_reg: float = 0.0

    # Rendering
    depth_resolution: int | None = None
    depth_resolution_importance: int | None = None
    ray_start: float | None = None
    ray_end: float | None = None
    neural_rendering_resolution_initial: int = 64
    neural_rendering_resolution_final: int | None = None
    neural_rendering_resolution_fade_kimg: int = 1000

    # Discriminator
    disc_module: str = "MaskDualDiscriminator"
    d_num_fp16_res: int = 4
    disc_c_noise: float = 0.0
    seg_resolution: int = 128
    seg_channels: int = 1

    # Losses
    blur_fade_kimg: int = 200
    gpc_reg_prob: float = 0.5
    gpc_reg_fade_kimg: int = 1000
    bcg_reg_prob: float = 0.0
    style_mixing_prob: float = 0.0
    density_reg: float = 0.25
    density_reg_every: int = 4
    density_reg_p_dist: float = 0.004
    density_noise_fade_kimg: int = 0
    reg_type: str = "l1"

    # Options of the family that have no effect in it
    c_noise: float = 0.0
    sr_first_cutoff: int = 2
    sr_first_stopband: float = 2**2.1

    @property
    def micro_batch(self) -> int:
        """Samples that one process handles at a time."""
        return self.batch // self.gpus if self.batch_gpu is None else self.batch_gpu

    @property
    def ray_limits(self) -> tuple[float, float]:
        """Nearest and farthest depth of the rays, in world units."""
        scene = SCENES[self.cfg]
        start = scene["ray_start"] if self.ray_start is None else self.ray_start
        return start, scene["ray_end"] if self.ray_end is None else self.ray_end
