"""The typed configuration of a training run: a field per option, tables of presets, and the arguments of constructors.

This module builds nothing.  It makes the dictionaries that constructors receive, including `class_name`.
"""

from dataclasses import asdict, dataclass
from typing import Any

from camera_utils import LABEL_DIM
from dnnlib import UserError
from metrics.requests import EFFICIENTNET
from training import config_checks
from training.superresolution import LAYOUTS

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

SR_MODULES = {128: "SuperresolutionHybrid2X", 256: "SuperresolutionHybrid4X", 512: "SuperresolutionHybrid8XDC"}
LIGHT_SR_MODULES = {**SR_MODULES, 512: "SuperresolutionHybrid8X"}
DISCRIMINATORS = ("MaskDualDiscriminator", "MaskDualDiscriminatorV2")

BLUR_INIT_SIGMA = 10.0  # pixels
R1_INTERVAL = 16  # batches between two R1 phases
ADA_INTERVAL = 4  # batches between two updates of the augmentation's strength
HALF_PRECISION_CLAMP = 256  # limit of activations if some layers run in float16


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """A training run.  Each field is an option of train.py with the same name, whose help explains it.

    Raises UserError for contradictory values, and for options that would have no effect.
    """

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

    def __post_init__(self):
        config_checks.check(self, PRESETS[self.preset])

    @property
    def micro_batch(self) -> int:
        """Samples that one process handles at a time."""
        return self.batch // self.gpus if self.batch_gpu is None else self.batch_gpu

    @property
    def rounds(self) -> int:
        """Micro-batches per process and batch."""
        return self.batch // (self.gpus * self.micro_batch)

    @property
    def ray_limits(self) -> tuple[float, float]:
        """Nearest and farthest depth of the rays, in world units."""
        scene = SCENES[self.cfg]
        start = scene["ray_start"] if self.ray_start is None else self.ray_start
        return start, scene["ray_end"] if self.ray_end is None else self.ray_end

    @property
    def ema_kimg(self) -> float:
        """Half-life of the averaged weights, in thousands of images."""
        return self.batch * 10 / 32

    @property
    def ema_rampup(self) -> float | None:
        """Growth of the half-life with the number of images seen (`schedules.ema_decay`).  None after a resume."""
        return None if self.resume else 0.05

    @property
    def ada_kimg(self) -> float:
        """Thousands of images over which the augmentation's strength can change by 1."""
        return 100 if self.resume else 500

    def run_name(self, data_name: str) -> str:
        """The name of the run folder, after its number."""
        parts = [self.cfg, data_name, f"gpus{self.gpus}", f"batch{self.batch}", f"gamma{self.gamma:g}"]
        return "-".join(parts + ([self.desc] if self.desc else []))

    def dataset_kwargs(self) -> dict[str, Any]:
        """Arguments of the data set."""
        names = ("img_data", "seg_data", "mirror", "min_yaw", "max_yaw", "back_repeat")
        return {name: getattr(self, name) for name in names}

    def metric_settings(self) -> dict[str, Any]:
        """Arguments of `metrics.measuring.Settings`."""
        options = dict(detector=self.detector, embedder=self.embedder, trust_pickle=self.trust_pickle)
        return dict(metrics=tuple(self.metrics), views=tuple(self.metric_views), batch=self.micro_batch, **options)

    def generator_kwargs(self, img_resolution: int) -> dict[str, Any]:
        """Constructor arguments of the generator for pictures of `img_resolution` pixels."""
        widths = dict(channel_base=self.cbase, channel_max=self.cmax, fused_modconv_default="inference_only")
        return dict(
            class_name="training.triplane.TriPlaneGenerator",
            z_dim=512,
            w_dim=512,
            c_dim=LABEL_DIM,
            img_resolution=img_resolution,
            img_channels=3,
            mapping_kwargs=dict(num_layers=self.map_depth),
            architecture=self.g_architecture,
            **widths,
            num_fp16_res=self.g_num_fp16_res,
            conv_clamp=HALF_PRECISION_CLAMP if self.g_num_fp16_res > 0 else None,
            sr_num_fp16_res=self.sr_num_fp16_res,
            sr_kwargs=widths,
            rendering_kwargs=self.rendering_kwargs(img_resolution),
        )

    def rendering_kwargs(self, img_resolution: int) -> dict[str, Any]:
        """The `rendering_kwargs` dictionary that the generator carries."""
        given = {
            name: getattr(self, name)
            for name in ("depth_resolution", "depth_resolution_importance", "ray_start", "ray_end")
            if getattr(self, name) is not None
        }
        return dict(
            image_resolution=img_resolution,
            disparity_space_sampling=False,
            clamp_mode="softplus",
            superresolution_module=f"training.superresolution.{self._sr_class(img_resolution)}",
            c_gen_conditioning_zero=not self.gen_pose_cond,
            gpc_reg_prob=self.gpc_reg_prob if self.gen_pose_cond else None,
            c_scale=self.c_scale,
            superresolution_noise_mode=self.sr_noise_mode,
            density_reg=self.density_reg,
            density_reg_p_dist=self.density_reg_p_dist,
            reg_type=self.reg_type,
            decoder_lr_mul=self.decoder_lr_mul,
            decoder_activation=self.decoder_activation,
            use_torgb_raw=self.use_torgb_raw,
            triplane_size=self.triplane_size,
            triplane_depth=self.triplane_depth,
            trans_reg=self.trans_reg,
            use_background=self.use_background,
            sr_antialias=True,
            **{**SCENES[self.cfg], **given},
        )

    def discriminator_kwargs(self, img_resolution: int) -> dict[str, Any]:
        """Constructor arguments of the discriminator."""
        return dict(
            class_name=f"training.dual_discriminator.{self.disc_module}",
            c_dim=LABEL_DIM,
            img_resolution=img_resolution,
            img_channels=3,
            channel_base=self.cbase,
            channel_max=self.cmax,
            num_fp16_res=self.d_num_fp16_res,
            conv_clamp=HALF_PRECISION_CLAMP if self.d_num_fp16_res > 0 else None,
            disc_c_noise=self.disc_c_noise,
            seg_resolution=self.seg_resolution,
            seg_channels=self.seg_channels,
            block_kwargs=dict(freeze_layers=self.freezed),
            mapping_kwargs={},
            epilogue_kwargs=dict(mbstd_group_size=self.mbstd_group),
        )

    def loss_kwargs(self) -> dict[str, Any]:
        """Arguments of the loss other than the networks.  A resumed run skips the fades unless it asks for them."""
        faded = self.resume is not None and not self.resume_blur
        return dict(
            class_name="training.loss.StyleGAN2Loss",
            r1_gamma=self.gamma,
            r1_gamma_seg=self.gamma_seg,
            style_mixing_prob=self.style_mixing_prob,
            blur_init_sigma=0 if faded else BLUR_INIT_SIGMA,
            blur_fade_kimg=self.batch * self.blur_fade_kimg / 32,
            gpc_reg_prob=self.gpc_reg_prob if self.gen_pose_cond else None,
            gpc_reg_fade_kimg=0 if faded else self.gpc_reg_fade_kimg,
            bcg_reg_prob=self.bcg_reg_prob,
            density_noise_fade_kimg=self.density_noise_fade_kimg,
            neural_rendering_resolution_initial=self.neural_rendering_resolution_initial,
            neural_rendering_resolution_final=self.neural_rendering_resolution_final,
            neural_rendering_resolution_fade_kimg=self.neural_rendering_resolution_fade_kimg,
        )

    def record(self, img_resolution: int) -> dict[str, Any]:
        """All options and the arguments derived from them, as shown by training_options.json and a dry run."""
        return dict(
            asdict(self),
            generator_kwargs=self.generator_kwargs(img_resolution),
            discriminator_kwargs=self.discriminator_kwargs(img_resolution),
            loss_kwargs=self.loss_kwargs(),
        )

    def _sr_class(self, img_resolution: int) -> str:
        """Name of the super-resolution class for pictures of `img_resolution` pixels."""
        modules = LIGHT_SR_MODULES if self.light_sr else SR_MODULES
        if img_resolution not in modules:
            raise UserError(
                f"the data set has {img_resolution} pixels, not 128, 256 or 512; use dataset_tool_seg.py --resolution"
            )
        if self.sr_module is None:
            return modules[img_resolution]
        name = self.sr_module.removeprefix("training.superresolution.")
        fitting = [known for known, layout in LAYOUTS.items() if layout.output_resolution == img_resolution]
        if name not in fitting:
            raise UserError(
                f"--sr-module {name} does not make the {img_resolution} pixels of the data; choose {' or '.join(fitting)}"
            )
        return name
