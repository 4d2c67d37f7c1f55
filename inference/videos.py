"""Videos: interpolation between keyframes, a grid of faces under one moving camera, and H.264 files."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import scipy.interpolate
import torch

from dnnlib import UserError, cli
from dnnlib.util import atomic_path
from inference import synthesis
from training.images import picture, tile
from training.triplane import TriPlaneGenerator

WRAPS = 2  # how often the keyframes are repeated on both sides, so that the curve closes smoothly
CRF = 18  # x264's constant quality; 18 is visually lossless
QUEUE_FRAMES = 4  # that wait for ffmpeg


def keyframe_seeds(
    seeds: list[int], cells: int, num_keyframes: int | None = None, shuffle_seed: int | None = None
) -> list[list[int]]:
    """Distribute seeds over cells: a list of `num_keyframes` seeds for each cell, filled in order, or shuffled if asked.

    Without `num_keyframes`, the number of seeds must be a multiple of the number of cells; with it, seeds are repeated as
    needed.  Raises UserError if they do not divide evenly or do not all fit.
    """
    if num_keyframes is None:
        if len(seeds) % cells:
            raise UserError(
                f"{len(seeds)} seeds do not fill a grid of {cells} cells: give a multiple of {cells} seeds, "
                "or --num-keyframes to repeat them"
            )
        num_keyframes = len(seeds) // cells
    if len(seeds) > cells * num_keyframes:
        raise UserError(
            f"{len(seeds)} seeds do not fit in {cells} cells of {num_keyframes} keyframes: give fewer, or more --num-keyframes"
        )
    filled = np.resize(seeds, cells * num_keyframes)
    if shuffle_seed is not None:
        np.random.RandomState(shuffle_seed).shuffle(filled)
    return filled.reshape(cells, num_keyframes).tolist()


def keyframe_curve(keyframes: torch.Tensor) -> Callable[[float], torch.Tensor]:
    """A closed cubic curve through ws [K, num_ws, w_dim], as a function from time, in keyframes, to ws [1, num_ws, w_dim]."""
    count = len(keyframes)
    times = np.arange(-WRAPS * count, (WRAPS + 1) * count)
    values = np.tile(keyframes.cpu().numpy(), [2 * WRAPS + 1, 1, 1])
    curve = scipy.interpolate.interp1d(times, values, kind="cubic", axis=0)
    return lambda time: torch.from_numpy(curve(time)[None]).to(keyframes)


def orbit_frames(
    G: TriPlaneGenerator,
    keyframes: torch.Tensor,
    path: synthesis.CameraPath,
    camera: Callable[[synthesis.View], torch.Tensor],
    frames_per_keyframe: int,
    columns: int = 1,
    mode: str = "image",
) -> Iterator[np.ndarray]:
    """Yield frames [H, W, 3], uint8, of one turn along `path` while each cell passes through its keyframes.

    keyframes are [cells, K, num_ws, w_dim]; `camera` maps views to labels (`synthesis.orbit`).  There are K times
    `frames_per_keyframe` frames.  A cell with a single keyframe shows a constant face, which is prepared only once.
    """
    count = keyframes.shape[1]
    total = count * frames_per_keyframe
    curves = [keyframe_curve(cell) for cell in keyframes]
    faces = [synthesis.prepare(G, cell[:1]) for cell in keyframes]
    depth_range = synthesis.depth_range(G)
    for index in range(total):
        if count > 1 and index > 0:
            faces = [synthesis.prepare(G, curve(index / frames_per_keyframe)) for curve in curves]
        label = camera(path.view(index / total))
        cells = [picture(synthesis.render(G, face, label), mode, depth_range) for face in faces]
        yield tile(np.concatenate(cells), columns)


def write_video(frames: Iterable[np.ndarray], path: str | os.PathLike, fps: int, total: int | None = None) -> None:
    """Write uint8 frames [H, W, 3] to an H.264 file (yuv420p).  The file appears only when it is complete.

    Odd sizes are extended by a copy of the last row or column, because the format stores colours for pairs of pixels.  A thread
    passes frames to the ffmpeg process while the next ones are rendered; at most `QUEUE_FRAMES` wait.  `total` is for the
    progress bar.
    """
    import imageio.v2 as imageio  # here: nothing else needs it

    settings = dict(codec="libx264", pixelformat="yuv420p", macro_block_size=1, quality=None, output_params=["-crf", str(CRF)])
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(atomic_path(path))
        # Left by itself, the writer keeps ffmpeg running when drawing fails, and the temporary file comes back.
        video = stack.enter_context(
            contextlib.closing(imageio.get_writer(temporary, format="FFMPEG", mode="I", fps=fps, **settings))
        )
        encoder = stack.enter_context(ThreadPoolExecutor(max_workers=1))
        waiting: deque[Future[None]] = deque()
        for frame in cli.progress(frames, total=total, unit="frame", desc=Path(path).name):
            if len(waiting) == QUEUE_FRAMES:
                waiting.popleft().result()
            height, width = frame.shape[:2]
            padded = np.pad(frame, [(0, height % 2), (0, width % 2), (0, 0)], mode="edge")
            waiting.append(encoder.submit(video.append_data, padded))
        for encoded in waiting:
            encoded.result()
