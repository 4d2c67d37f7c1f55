"""Option types of the photo command: which face to use, and heads given by hand."""

import re
from typing import Any

import click

from .head_model import HEAD_POINTS
from .prepare import ALL, LARGEST, HandPose

PLAIN_POINTS = ("right-eye", "left-eye", "mouth")  # the meaning of points without names
NUMBER = r"[-+]?\d+(?:\.\d+)?"
ONE_POINT = rf"(?:[a-z-]+=)?{NUMBER},{NUMBER}"


class Numbers(click.ParamType):
    """Parses ``a,b,c`` into a tuple of floats: at least `least` of them and at most as many as there are `names`."""

    def __init__(self, *names: str, least: int | None = None):
        self.name = ",".join(names)
        self._least, self._most = least or len(names), len(names)

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not self._least <= len(parts) <= self._most or not all(re.fullmatch(NUMBER, part) for part in parts):
            self.fail(f"{value!r} is not of the form {self.name}", param, ctx)
        return tuple(map(float, parts))


class Points(click.ParamType):
    """Parses several ``NAME=x,y``, or x,y of the three PLAIN_POINTS, into a dictionary by name."""

    name = "x,y,x,y,x,y"

    def convert(self, value: Any, param: Any, ctx: Any) -> dict[str, tuple[float, float]]:
        if isinstance(value, dict):
            return value
        if not re.fullmatch(rf"\s*{ONE_POINT}(?:[\s,;]+{ONE_POINT})*\s*", value):
            self.fail(f"{value!r} is not of the form x,y,x,y,x,y or NAME=x,y NAME=x,y", param, ctx)
        parts = [re.split("[=,]", text) for text in re.findall(ONE_POINT, value)]
        found = [(part[0] if len(part) == 3 else None, (float(part[-2]), float(part[-1]))) for part in parts]
        if all(name is None for name, _ in found):
            if len(found) != len(PLAIN_POINTS):
                self.fail(f"{len(found)} points; without names there must be three: {', '.join(PLAIN_POINTS)}", param, ctx)
            return dict(zip(PLAIN_POINTS, (place for _, place in found)))
        points = {name: place for name, place in found if name is not None}
        if len(points) < max(2, len(found)) or not points.keys() <= HEAD_POINTS.keys():
            self.fail(f"{value!r}: give two or more different points of {', '.join(HEAD_POINTS)}, each as NAME=x,y", param, ctx)
        return points


class WhichFace(click.ParamType):
    """LARGEST, ALL, or a number starting from 1."""

    name = "largest|all|N"

    def convert(self, value: Any, param: Any, ctx: Any) -> str | int:
        if value in (LARGEST, ALL) or isinstance(value, int):
            return value
        if not re.fullmatch(r"[1-9]\d{0,5}", value):
            self.fail(f"{value!r} is not largest, all or a number from 1 (the largest)", param, ctx)
        return int(value)


def hand_pose(pose: tuple[float, ...] | None, points: dict | None, box: tuple[float, ...] | None) -> HandPose | None:
    """Combine --pose, --points and --box.  None without --pose; raises click.UsageError if they do not go together."""
    if pose is None:
        if points or box:
            raise click.UsageError("--points and --box only work together with --pose yaw,pitch")
        return None
    if (points is None) == (box is None):
        raise click.UsageError("--pose gives the orientation of the head; give its position with one of --points and --box")
    yaw, pitch, roll = (*pose, 0.0)[:3]
    if abs(yaw) > 180 or abs(pitch) > 89 or abs(roll) > 180:
        raise click.UsageError("--pose is in degrees: yaw from -180 to 180, pitch from -89 to 89, roll from -180 to 180")
    if box and (box[2] <= box[0] or box[3] <= box[1]):
        raise click.UsageError("--box is left,top,right,bottom in pixels, with right beyond left and bottom beyond top")
    return HandPose((yaw, pitch, roll), points, (box[0], box[1], box[2], box[3]) if box else None)
