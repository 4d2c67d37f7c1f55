"""The folder of one inversion: its options, the finished stages, and its files, which appear only when complete."""

import hashlib
import json
import math
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import camera_utils
from dnnlib import UserError
from dnnlib.util import FileLock, atomic_path, make_output_dir
from inference.shapes import MESH_FORMATS
from pti.projector import Pivot
from pti.targets import Target
from training.images import save_image, tile, to_uint8
from training.triplane import TriPlaneGenerator

OPTIONS_NAME, LOCK_NAME = "options.json", ".lock"
ADVICE = "choose another --outdir, or give --restart true"


class Results:
    """The files in the folder of one target, and how they are written and read."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.options = folder / OPTIONS_NAME
        self.target, self.projection = folder / "target.png", folder / "proj.png"
        self.pivot, self.camera = folder / "projected_w.npz", folder / "camera.json"
        self.generator = folder / "finetuned_generator.pkl"
        self.progress_video = folder / "proj.mp4"
        self.video_before, self.video_after = folder / "PTI_render" / "pre.mp4", folder / "PTI_render" / "post.mp4"
        self.volume = folder / "geometry.mrc"

    def head(self, suffix: str) -> Path:
        """The path of the mesh, in one of the formats."""
        return self.folder / f"head{suffix}"

    def lock(self) -> FileLock:
        """Create the folder and lock it for this process.  Raises UserError if another process holds the lock."""
        make_output_dir(self.folder)
        return FileLock(
            self.folder / LOCK_NAME, f"another process works in {self.folder}; wait for it, or choose another --outdir"
        )

    def begin(self, asked: dict[str, Any], wanted: dict[str, Any], restart: bool) -> None:
        """Set up the folder for the options `asked`, or resume in it.  Raises UserError if it was begun with other options.

        Films and meshes that differ from what is `wanted` are removed and will be made again.  Unwanted ones are kept, and so
        is the film of the projection, which can only be made during the projection.  `restart` removes everything except the
        lock, if this is a folder of this kind.
        """
        if restart and self.options.exists():
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != LOCK_NAME:
                    path.unlink()
        make_output_dir(self.video_before.parent)
        if self.options.exists():
            self._check_options(asked)
            wanted = self._remove_others(wanted)
        with atomic_path(self.options) as temporary:
            temporary.write_text(json.dumps(dict(asked, wanted=wanted), indent=1) + "\n", encoding="utf-8")

    def _read_options(self) -> dict[str, Any]:
        try:
            stored = json.loads(self.options.read_text(encoding="utf-8"))
            if isinstance(stored["wanted"], dict):
                return stored
        except (ValueError, KeyError, TypeError):
            pass
        raise UserError(f"{self.options} is damaged; {ADVICE}")

    def _remove_others(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Remove films and meshes that were made with other settings than `wanted`.  Returns the settings of the rest."""
        was, kept = self._read_options()["wanted"], {}
        for kind, names, files in (
            ("video", ("fps", "frames"), self._films),
            ("shapes", ("shape_res", "shape_level"), self._meshes),
        ):
            if not wanted[kind]:
                kept.update({name: was.get(name) for name in names})
            elif any(was.get(name) != wanted[name] for name in names):
                for file in files:
                    file.unlink(missing_ok=True)
        return wanted | kept

    def forget_pivot(self) -> None:
        """Remove everything that was made from a latent that no longer exists."""
        for file in (self.camera, self.projection, self.generator, self.progress_video, *self._films, *self._meshes):
            file.unlink(missing_ok=True)

    @property
    def _films(self) -> list[Path]:
        return [self.video_before, self.video_after]

    @property
    def _meshes(self) -> list[Path]:
        return [self.volume, *map(self.head, MESH_FORMATS)]

    def _check_options(self, asked: dict[str, Any]) -> None:
        stored = self._read_options()
        for name, label in (("resolution", "pixels"), ("network", "")):
            if stored.get(name) != asked[name]:
                was, now = (f" ({value} {label})" if label else "" for value in (stored.get(name), asked[name]))
                raise UserError(f"{self.folder} was begun with another network{was} than the one given now{now}; {ADVICE}")
        if stored.get("target") != asked["target"]:
            raise UserError(f"{self.folder} belongs to another photo, mask or camera than those given now; {ADVICE}")
        changes = [f"{name} was {stored.get(name)}, is {value}" for name, value in asked.items() if stored.get(name) != value]
        if changes:
            raise UserError(f"cannot continue in {self.folder} with other options: {'; '.join(changes)}; {ADVICE}")

    def save_target(self, target: Target) -> None:
        """Save the photos in the form in which they are compared."""
        save_image(tile(to_uint8(target.images), len(target.images)), self.target)

    def save_pivot(self, pivot: Pivot, target: Target) -> None:
        """Save the latent, the cameras, and the noise if it was optimised."""
        self._save_cameras(pivot, target)
        arrays = dict(
            ws=pivot.ws, labels=pivot.labels, motion=pivot.motion, **{f"noise:{k}": v for k, v in pivot.noise.items()}
        )
        if pivot.ws_bcg is not None:
            arrays["ws_bcg"] = pivot.ws_bcg
        with atomic_path(self.pivot) as temporary:
            np.savez(temporary, **{name: tensor.cpu().numpy() for name, tensor in arrays.items()})

    def load_pivot(self, device: torch.device) -> Pivot:
        """Load what `save_pivot` wrote onto `device`.  Raises UserError if it cannot be read."""
        try:
            with np.load(self.pivot, allow_pickle=False) as stored:
                arrays = {name: torch.from_numpy(stored[name]).to(device) for name in stored.files}
            noise = {name.removeprefix("noise:"): arrays[name] for name in arrays if name.startswith("noise:")}
            return Pivot(arrays["ws"], arrays.get("ws_bcg"), arrays["labels"], arrays["motion"], noise)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            raise UserError(f"{self.pivot} cannot be read; remove it to repeat the projection") from None

    def _save_cameras(self, pivot: Pivot, target: Target) -> None:
        angles = camera_utils.yaw_pitch_roll_degrees(pivot.labels.cpu()).tolist()
        cameras = []
        for given, used, motion, angle in zip(target.labels.tolist(), pivot.labels.tolist(), pivot.motion.tolist(), angles):
            focal = camera_utils.unpack_label(torch.tensor(used))[1][0, 0].item()
            cameras.append(
                dict(
                    label=used,
                    label_given=given,
                    motion=motion,
                    yaw_pitch_roll_degrees=angle,
                    focal=focal,
                    field_of_view_degrees=math.degrees(2 * math.atan(0.5 / focal)),
                )
            )
        with atomic_path(self.camera) as temporary:
            temporary.write_text(json.dumps(dict(cameras=cameras), indent=1) + "\n", encoding="utf-8")


def digest_of_network(G: TriPlaneGenerator) -> str:
    """A short hash of the weights of `G`."""
    digest = hashlib.blake2b(digest_size=8)
    for parameter in G.parameters():
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def digest_of_target(target: Target) -> str:
    """A short hash of the photos, masks and cameras of `target`."""
    digest = hashlib.blake2b(digest_size=8)
    for tensor in (target.images, target.masks, target.labels):
        digest.update(b"none" if tensor is None else tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
