"""What leaves the viewer as a file: pictures, films, meshes."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import scipy.interpolate

from inference import shapes
from inference.videos import write_video
from meshes.head_file import save_head
from viz import picture
from viz.picture import Network
from viz.states import MAX_DISTANCE, MIN_DISTANCE, State

Turn = Callable[[], AbstractContextManager]  # inside, the network is for this thread alone: `Painter.turn`
Step = Callable[[float], None]  # told how much is done, from 0 to 1; may raise to end the work


def png(state: State, network: Network, turn: Turn) -> bytes:
    """The picture of `state` as a file; without a background it is transparent."""
    with turn():
        pixels = picture.picture(state, network)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def turntable(state: State, frames: int) -> list[State]:
    """One turn about the head, from where the camera is."""
    yaws = np.linspace(0, 360, frames, endpoint=False)
    return [replace(state, yaw=float(state.yaw + yaw) % 360) for yaw in yaws]


def fly(state: State, keys: Sequence[State], frames: int) -> list[State]:
    """The face of `state` along a smooth path through the cameras of `keys`, two at least, the short way round."""
    parts = np.array([[key.yaw, key.pitch, key.distance, key.fov_deg, *key.target] for key in keys])
    parts[:, 0] = np.unwrap(parts[:, 0], period=360)
    # Between two keys this curve stays between their values: no camera goes farther than a person has put it.
    path = scipy.interpolate.PchipInterpolator(np.arange(len(keys)), parts)(np.linspace(0, len(keys) - 1, frames))
    return [
        replace(
            state,
            yaw=float(yaw) % 360,
            pitch=float(pitch),
            distance=float(np.clip(distance, MIN_DISTANCE, MAX_DISTANCE)),
            fov_deg=float(fov),
            target=tuple(map(float, target)),
        )
        for yaw, pitch, distance, fov, *target in path
    ]


def film(views: Sequence[State], network: Network, path: Path, fps: int, turn: Turn, step: Step) -> None:
    """Write the pictures of `views` as an H.264 file; transparent ones on black."""

    def frames() -> Iterator[np.ndarray]:
        for index, view in enumerate(views):
            step(index / len(views))
            with turn():
                pixels = picture.picture(view, network)
            yield _on_black(pixels)

    write_video(frames(), path, fps, len(views))


def _on_black(pixels: np.ndarray) -> np.ndarray:
    if pixels.shape[2] == 3:
        return pixels
    return (pixels[..., :3].astype(np.float32) * (pixels[..., 3:] / 255) + 0.5).astype(np.uint8)


def mesh(state: State, network: Network, path: Path, resolution: int, turn: Turn, step: Step) -> None:
    """Write the head of `state` as the suffix of `path` says, at `resolution`³ voxels, with its camera."""
    shapes.check_format(path.suffix)
    step(0.0)
    with turn():
        face = network.face(picture.face_of(state, network))
    step(0.1)
    densities = shapes.density_grid(network.G, face, resolution)  # draws no random numbers: pages may go on meanwhile
    step(0.6)
    G, _ = picture.drawing(replace(state, **picture.front_view(network)), network)  # its colours are seen from all round
    with turn():
        save_head(G, face, densities, path, picture.camera(state, network))
