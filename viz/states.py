"""What is looked at, and from where: all that a picture of a network depends on, in one dataclass."""

import math
import shlex
from dataclasses import dataclass, field, fields
from typing import Any

import click
import numpy as np
import torch

import camera_utils
from dnnlib import UserError, cli
from training.images import IMAGE_MODES

NORMALS = "image_normals"
SHOWN = (*IMAGE_MODES[:3], NORMALS, IMAGE_MODES[3])
SEED, PHOTO = "seed", "photo"  # where a face comes from
OWN, OTHER, WHITE, NONE = "own", "other", "white", "none"  # what is behind the head
MIN_DISTANCE, MAX_DISTANCE = 0.8, 10.0
MAX_DIRECTIONS = 16
SAME = 1e-3  # world units; a page rounds


def _setting(default: Any, about: str, low: float | None = None, high: float | None = None, choices: tuple = ()) -> Any:
    """A field of the state: its default, its text for --help, and its limits; `low` and `high` are for each of several."""
    return field(default=default, metadata=dict(about=about, low=low, high=high, choices=choices))


@dataclass(frozen=True)
class State:
    """What a picture shows; names and units are those of the commands' options.  UserError for values out of range."""

    face: str = _setting(SEED, "Face of a seed, or of the photo that the network was tuned to", choices=(SEED, PHOTO))
    seed: int = _setting(0, "Random seed of the face", 0, cli.MAX_SEED)
    trunc: float = _setting(0.7, "Truncation: 0 is the mean face, 1 the full variety", -2, 2)
    trunc_cutoff: int = _setting(14, "Rows of w that --trunc applies to", 0, 100)
    pose_cond: float = _setting(90.0, "Azimuth of the conditioning camera in degrees, 90 is frontal", -360, 360)
    walk: float = _setting(0.0, "How far to walk to the face of --walk_seed", 0, 1)
    walk_seed: int = _setting(1, "Where the walk leads to", 0, cli.MAX_SEED)
    mix: tuple[int, ...] = _setting((0, 0), "Rows of w, first and one past the last, from --mix_seed", 0, 100)
    mix_seed: int = _setting(2, "Whose styles are mixed in", 0, cli.MAX_SEED)
    directions: tuple[float, ...] = _setting((), "Steps along the principal directions of w, in deviations", -20, 20)
    background: str = _setting(OWN, "The face's own, that of --background_seed, or plain", choices=(OWN, OTHER, WHITE, NONE))
    background_seed: int = _setting(3, "Whose background it is with --background other", 0, cli.MAX_SEED)
    image_mode: str = _setting(IMAGE_MODES[0], "Which picture to show", choices=SHOWN)
    fov_deg: float = _setting(camera_utils.DEFAULT_FOV_DEGREES, "Field of view in degrees", 5, 90)
    sample_mult: float = _setting(1.0, "Multiplies the samples on a ray", 0.25, 8)
    yaw: float = _setting(0.0, "Camera to the side of the frontal one, in degrees", -360, 360)
    pitch: float = _setting(0.0, "Camera below the frontal one, in degrees", -90, 90)
    distance: float = _setting(camera_utils.DEFAULT_RADIUS, "Camera from what it looks at", MIN_DISTANCE, MAX_DISTANCE)
    target: tuple[float, ...] = _setting((0.0, 0.0, 0.0), "Where the camera looks: x,y,z", -1, 1)

    def __post_init__(self) -> None:
        for setting in fields(self):
            object.__setattr__(self, setting.name, _checked(setting, getattr(self, setting.name)))
        if len(self.target) != 3 or len(self.mix) != 2 or len(self.directions) > MAX_DIRECTIONS:
            raise UserError(f"--target has 3 numbers, --mix 2, --directions at most {MAX_DIRECTIONS}")

    def camera(self, focal: torch.Tensor) -> torch.Tensor:
        """The label [1, 25] of the camera, with intrinsics `focal` [3, 3], on the device of those."""
        yaw, pitch = math.radians(self.yaw), math.radians(self.pitch)
        label = camera_utils.orbit_label(yaw, pitch, self.distance, intrinsics=focal, device=focal.device)
        return camera_utils.shift_label(label, torch.tensor(self.target, device=focal.device))


def _checked(setting: Any, value: Any) -> Any:
    """`value` as the field takes it: whole, finite, within its limits; UserError if it is not."""
    about, name = setting.metadata, f"--{setting.name} {value}"
    if about["choices"]:
        if value not in about["choices"]:
            raise UserError(f"{name}: choose from {', '.join(about['choices'])}")
        return value
    numbers = value if isinstance(value, (tuple, list)) else (value,)
    kind = {tuple[int, ...]: int, tuple[float, ...]: float}.get(setting.type, setting.type)
    try:
        converted = tuple(kind(number) for number in numbers)
        exact = all(math.isfinite(number) and kind(number) == number for number in numbers)
    except (TypeError, ValueError, OverflowError):
        converted, exact = (), False
    if not exact or any(not about["low"] <= number <= about["high"] for number in converted):
        whole = "whole numbers" if kind is int else "numbers"
        raise UserError(f"{name}: {whole} from {about['low']} to {about['high']} will do")
    return converted if isinstance(setting.default, tuple) else converted[0]


def view_of(position: np.ndarray, target: np.ndarray) -> dict[str, Any]:
    """The fields of the state that put the camera at `position` [3], looking at `target` [3], as near as they allow."""
    offset = np.asarray(position, dtype=np.float64) - target
    distance = float(np.linalg.norm(offset))
    x, y, z = offset / max(distance, 1e-9)
    return dict(
        yaw=round(math.degrees(math.pi / 2 - math.atan2(z, x)), 3) % 360,
        pitch=round(min(max(-90 * float(y), -89.9), 89.9), 3),  # `LookAtPoseSampler` spreads heights, not angles, evenly
        distance=round(min(max(distance, MIN_DISTANCE), MAX_DISTANCE), 4),
        target=tuple(round(min(max(float(part), -1), 1), 4) for part in target),
    )


def position_of(state: State) -> np.ndarray:
    """Where the camera of the state is, [3] in world units."""
    label = state.camera(camera_utils.intrinsics_from_focal())
    return camera_utils.unpack_label(label)[0][0, :3, 3].double().numpy()


def is_same_view(view: dict[str, Any], state: State) -> bool:
    """Whether what `view_of` returned is where the state's camera is already, but for rounding."""
    other = State(**view)
    apart = np.abs(position_of(other) - position_of(state)).max(), np.abs(np.subtract(other.target, state.target)).max()
    return max(apart) < SAME


class _Numbers(click.ParamType):
    """``a,b,c`` as a tuple of numbers."""

    name = "a,b,…"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(map(float, value.split(",")))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers with commas between", param, ctx)


def state_options(function: Any) -> Any:
    """An option for each field of the state, passed on under its name."""
    for setting in reversed(fields(State)):
        if setting.metadata["choices"]:
            kind = click.Choice(setting.metadata["choices"])
        else:
            kind = {int: int, float: cli.FiniteFloat()}.get(type(setting.default), _Numbers())
        settings = dict(help=setting.metadata["about"], default=setting.default, show_default=setting.default != ())
        function = click.option(f"--{setting.name}", type=kind, **settings)(function)
    return function


def command_line(state: State, network: str, out: str) -> str:
    """The command that writes the picture of `state` without the page."""
    words = ["python", "visualizer.py", "--network", network, "--out", out]
    for setting in fields(State):
        value = getattr(state, setting.name)
        if value != setting.default:
            words += [f"--{setting.name}", ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return shlex.join(words)
