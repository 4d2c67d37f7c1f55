"""The options that users of this family of networks know, with the defaults they expect."""

import click
import pytest

import gen_samples
import gen_videos
import train

REQUIRED = object()
TRAINING = {
    **dict.fromkeys(("outdir", "cfg", "img_data", "seg_data", "gpus", "batch", "gamma", "gamma_seg"), REQUIRED),
    **dict(cond=True, mirror=False, aug="noaug", p=0.2, target=0.6, resume=None, resume_kimg=0, freezed=0, batch_gpu=None),
    **dict(mbstd_group=4, cbase=32768, cmax=512, glr=0.0025, dlr=0.002, map_depth=2, desc=None, metrics=(), kimg=25000, tick=4),
    **dict(snap=50, seed=0, nobench=False, workers=3, dry_run=False, neural_rendering_resolution_initial=64),
    **dict(neural_rendering_resolution_final=None, neural_rendering_resolution_fade_kimg=1000, g_architecture="skip"),
    **dict(blur_fade_kimg=200, resume_blur=False, gen_pose_cond=False, gpc_reg_prob=0.5, gpc_reg_fade_kimg=1000, c_scale=1),
    **dict(c_noise=0, disc_c_noise=0, sr_noise_mode="none", sr_module=None, sr_num_fp16_res=4, g_num_fp16_res=0),
    **dict(d_num_fp16_res=4, style_mixing_prob=0, sr_first_cutoff=2, sr_first_stopband=2**2.1, density_reg=0.25),
    **dict(density_reg_every=4, density_reg_p_dist=0.004, density_noise_fade_kimg=0, reg_type="l1", decoder_lr_mul=1),
    **dict(decoder_activation="sigmoid", use_torgb_raw=False, use_background=True, bcg_reg_prob=0),
    **dict(disc_module="MaskDualDiscriminator", seg_resolution=128, seg_channels=1, triplane_size=256, triplane_depth=1),
    **dict(trans_reg=0, min_yaw=0, max_yaw=180, back_repeat=1, ray_start=None, ray_end=None),
}
DRAWING = {
    **dict(network=REQUIRED, seeds=REQUIRED, trunc_cutoff=14, shapes=False, shape_res=512, shape_format=".mrc"),
    "fov_deg": 18.837,
    "pose_cond": 90,
    "reload_modules": False,
    "class": None,
}
SAMPLES = dict(DRAWING, outdir=REQUIRED, trunc=0.7)
VIDEOS = dict(
    DRAWING,
    **dict(outdir=None, trunc=1, cfg="FFHQ", grid="1x1", image_mode="image", w_frames=240, num_keyframes=None),
    **dict(shuffle_seed=None, sample_mult=1, nrr=None, interpolate=True, fps=60),
)


@pytest.mark.parametrize("command, known", [(train, TRAINING), (gen_samples, SAMPLES), (gen_videos, VIDEOS)])
def test_options_and_defaults_are_those_of_the_family(command, known):
    options = {option.opts[-1].lstrip("-").replace("-", "_"): option for option in command.main.params}
    context = click.Context(command.main)
    for name, default in known.items():
        assert name in options, name
        if default is REQUIRED:
            assert options[name].required, name
        else:
            found = options[name].get_default(context)
            found = found if isinstance(found, (str, int, float, tuple)) else None  # click's way of saying that there is none
            assert not options[name].required and found == default, name
