"""What changes while training goes on, as pure functions of `nimg`, the number of real images seen so far."""


def _progress(nimg: float, fade_kimg: float) -> float:
    """How much of a fade over `fade_kimg` thousand images is done, 0 to 1; no fade is a finished one."""
    return min(nimg / (fade_kimg * 1000), 1.0) if fade_kimg > 0 else 1.0


def blur_sigma(nimg: float, init_sigma: float, fade_kimg: float) -> float:
    """Deviation in pixels of the blur on what the discriminator sees (EG3D, supplement): from `init_sigma` linearly to 0."""
    return init_sigma * (1 - _progress(nimg, fade_kimg))


def pose_swap_probability(nimg: float, final: float, fade_kimg: float) -> float:
    """Chance that a sample is conditioned on another's camera (EG3D, section 3.5): from 1 linearly to `final`."""
    done = _progress(nimg, fade_kimg)
    return (1 - done) + done * final


def rendering_resolution(nimg: float, initial: int, final: int | None, fade_kimg: float) -> int:
    """Pixels of the raw picture: from `initial` linearly to `final`, or `initial` always where `final` is None."""
    if final is None:
        return initial
    done = _progress(nimg, fade_kimg)
    return int(round(initial * (1 - done) + final * done))


def density_noise(nimg: float, fade_kimg: float) -> float:
    """Deviation of the noise on densities: from 1 linearly to 0."""
    return 1 - _progress(nimg, fade_kimg)


def ema_decay(nimg: float, batch: int, half_life_kimg: float, rampup: float | None) -> float:
    """Factor on the averaged weights after one batch, so that they forget half in `half_life_kimg`.

    Early on the half-life is `rampup` times the images seen, so that the first weights do not linger; None: never.
    """
    half_life = half_life_kimg * 1000
    if rampup is not None:
        half_life = min(half_life, nimg * rampup)
    return 0.5 ** (batch / max(half_life, 1e-8))
