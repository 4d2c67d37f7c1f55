"""The typed configuration of a training run: its options, checked, and the arguments of constructors.

This module builds nothing.  It makes the dictionaries that constructors receive, including `class_name`.
"""

from dataclasses import asdict, dataclass
from typing import Any

from camera_utils import LABEL_DIM
from dnnlib import UserError
from training import config_checks
from training.options import PRESETS, SCENES, Options
from training.superresolution import LAYOUTS

SR_MODULES = {128: "SuperresolutionHybrid2X", 256: "SuperresolutionHybrid4X", 512: "SuperresolutionHybrid8XDC"}
LIGHT_SR_MODULES = {**SR_MODULES, 512: "SuperresolutionHybrid8X"}

BLUR_INIT_SIGMA = 10.0  # pixels
R1_INTERVAL = 16  # batches between two R1 phases
ADA_INTERVAL = 4  # batches between two updates of the augmentation's strength
HALF_PRECISION_CLAMP = 256  # limit of activations if some layers run in float16


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Options):
    """The options of a training run, and what follows from them.

    Raises UserError for values that contradict each other and for options that would have no effect.
    """

    def __post_init__(self):
        config_checks.check(self, PRESETS[self.preset])

    @property
    def rounds(self) -> int:
        """Micro-batches per process and batch."""
        return self.batch // (self.gpus * self.micro_batch)

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
            const_resolution=self.g_const_resolution,
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
