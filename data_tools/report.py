"""The report of `dataset_tool_seg.py --check`: faults of a data set, statistics of its cameras, and a contact sheet."""

import collections
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import camera_utils
from camera_utils import DEFAULT_FOCAL, DEFAULT_RADIUS, LABEL_DIM
from data_tools.contact_sheet import draw_cell, draw_sheet
from data_tools.pairs import Pair, Tally, Unusable, highest_level, load_pair, map_in_order, mask_classes, pair_by_name
from dnnlib import UserError, cli
from dnnlib.archive import LABELS_NAME, Archive, read_labels
from dnnlib.util import is_power_of_two, make_output_dir

SHEET_SAMPLES = 40
ORTHONORMAL_TOLERANCE = 0.01  # the rotations of published labels were fitted to photos and are off by 0.003
RADIUS_TOLERANCE = 0.1 * DEFAULT_RADIUS
FOCAL_TOLERANCE = 0.1 * DEFAULT_FOCAL
CENTRE_TOLERANCE = 0.05  # of the principal point, in picture widths
HEAD_LEVEL = 128  # a mask that reaches it nowhere contains no head
PIXEL_FOCAL = 50  # larger focal lengths must be in pixels; in picture widths they are about 4
YAW_BIN = 15  # degrees
BAR_LENGTH = 40  # characters of the longest bar


_NO_ROTATION = "label whose rotation is not orthonormal"
_MIRROR_IMAGE = "label whose rotation is a mirror image (negative determinant)"
_LOOKS_AWAY = "camera that does not see the origin (are its axes x right, y down, z forward?)"
UNUSABLE_LABELS = (_NO_ROTATION, _MIRROR_IMAGE, _LOOKS_AWAY)  # cameras like these cannot see a head


@dataclass
class _Findings:
    faults: Tally = field(default_factory=Tally)
    faulty: set[str] = field(default_factory=set)  # images whose label has a fault
    sizes: dict[str, collections.Counter] = field(default_factory=lambda: collections.defaultdict(collections.Counter))


@dataclass
class _Seen:
    """Facts about one readable pair."""

    sizes: dict[str, tuple[int, int]]
    mask_fault: str | None
    cell: np.ndarray | None  # for the contact sheet


def check(images: Archive, masks: Archive, sheet: Path) -> tuple[list[str], bool]:
    """Read a whole data set and write a contact sheet to `sheet`.  Returns the lines of a report, and whether it is sound.

    Raises UserError if there is nothing to check: a source without pictures, or an invalid dataset.json.
    """
    for archive in (images, masks):
        if not archive.image_names():
            raise UserError(f"{archive.path} contains no pictures")
    make_output_dir(sheet.parent)
    labels = read_labels(images)
    found = _Findings()
    pairs = pair_by_name(images, masks, found.faults)
    cameras = _check_labels(images, labels, found)
    cells = _check_pictures(images, masks, pairs, cameras, found)
    lines = [
        f"images    {images.path}: {_sizes(found.sizes['image'])}",
        f"masks     {masks.path}: {_sizes(found.sizes['mask'])}",
    ]
    lines += [f"labels    {'none' if labels is None else len(labels)}", *_describe_cameras(cameras)]
    if cells:
        draw_sheet(cells, sheet)
        lines.append(f"contact sheet of {len(cells)}: {sheet}")
    lines += _notes(found.sizes)
    lines += [f"  {line}" for line in found.faults.lines()]
    lines.append(f"not sound: {found.faults.total} faults" if found.faults.total else "sound: no faults found")
    return lines, not found.faults.total


def label_faults(labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Find unusual labels among [N, 25].  Returns a bool [N] for each kind of fault."""
    cam2world, intrinsics = camera_utils.unpack_label(labels)
    rotation, position = cam2world[:, :3, :3], cam2world[:, :3, 3]
    drift = (rotation @ rotation.mT - torch.eye(3, dtype=labels.dtype)).abs().amax((1, 2))
    focal = intrinsics.diagonal(dim1=1, dim2=2)[:, :2]
    centre = intrinsics[:, :2, 2]
    plain = torch.zeros_like(intrinsics)  # the entries that are the same for every camera without skew
    plain[:, 2, 2] = 1
    constant = torch.tensor([[0, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=torch.bool)
    last_row = torch.tensor([0, 0, 0, 1], dtype=labels.dtype)
    head, depth = camera_utils.project_points(labels, torch.zeros(1, 3, dtype=labels.dtype))
    in_view = (depth[:, 0] > 0) & (head[:, 0] >= 0).all(1) & (head[:, 0] <= 1).all(1)
    return {
        _NO_ROTATION: drift > ORTHONORMAL_TOLERANCE,
        _MIRROR_IMAGE: torch.linalg.det(rotation) < 0,
        "label whose fourth row is not 0 0 0 1": (cam2world[:, 3] != last_row).any(1),
        f"camera radius far from {DEFAULT_RADIUS}": (position.norm(dim=1) - DEFAULT_RADIUS).abs() > RADIUS_TOLERANCE,
        f"focal length far from {DEFAULT_FOCAL}": ((focal - DEFAULT_FOCAL).abs() > FOCAL_TOLERANCE).any(1),
        "principal point far from the middle": ((centre - 0.5).abs() > CENTRE_TOLERANCE).any(1),
        "intrinsics with skew, or a last row that is not 0 0 1": ((intrinsics != plain) & constant).any((1, 2)),
        _LOOKS_AWAY: ~in_view,
    }


def yaw_histogram(yaw: torch.Tensor) -> list[str]:
    """A text histogram of angles [N] in degrees within [-180, 180]."""
    edges = np.arange(-180, 181, YAW_BIN)
    counts = np.histogram(yaw.numpy(), bins=edges)[0]
    unit = max(counts.max(), 1) / BAR_LENGTH
    bars = ["#" * math.ceil(count / unit) for count in counts]
    return [f"  {low:4d} to {low + YAW_BIN:4d} {count:8d} {bar}".rstrip() for low, count, bar in zip(edges, counts, bars)]


def _check_labels(images: Archive, labels: dict[str, list[float]] | None, found: _Findings) -> dict[str, torch.Tensor]:
    """Count missing and faulty labels.  Returns those that can be used further, by image, as float64 [25]."""
    if labels is None:
        found.faults.add("data set without labels", LABELS_NAME)
        return {}
    names = set(images.image_names())
    for name in sorted(names - labels.keys()):
        found.faults.add("image without a label", name)
    for name in sorted(labels.keys() - names):
        found.faults.add("label without an image", name)
    readable = {}
    for name in sorted(labels.keys() & names):
        if len(labels[name]) != LABEL_DIM:
            found.faults.add(f"label that is not {LABEL_DIM} numbers", f"{name} ({len(labels[name])})")
        elif not all(map(math.isfinite, labels[name])):
            found.faults.add("label with numbers that are not finite", name)
        else:
            readable[name] = torch.tensor(labels[name], dtype=torch.float64)
    if readable:
        ordered = list(readable)
        for kind, flags in label_faults(torch.stack(list(readable.values()))).items():
            for index in flags.nonzero()[:, 0].tolist():
                found.faults.add(kind, ordered[index])
                found.faulty.add(ordered[index])
    return readable


def _check_pictures(
    images: Archive, masks: Archive, pairs: list[Pair], cameras: dict[str, torch.Tensor], found: _Findings
) -> list[np.ndarray]:
    """Read every pair, count sizes and faults, and draw the cells of the contact sheet."""
    on_sheet = _spread(pairs, cameras)

    def inspect(pair: Pair) -> _Seen | Unusable:
        try:
            image, mask = load_pair(images, masks, pair)
        except Unusable as reason:
            return reason
        fault = mask_fault(mask)
        cell = None
        if pair.image in on_sheet:
            is_faulty = pair.image in found.faulty or fault is not None
            cell = draw_cell(image, mask, cameras.get(pair.image), pair.image, is_faulty)
        return _Seen({"image": image.size, "mask": mask.size}, fault, cell)

    cells = {}
    for seen, pair in zip(cli.progress(map_in_order(inspect, pairs), total=len(pairs), unit="image"), pairs):
        if isinstance(seen, Unusable):
            found.faults.add(seen.kind, seen.example)
            continue
        for what, size in seen.sizes.items():
            found.sizes[what][size] += 1
        if seen.mask_fault is not None:
            found.faults.add(seen.mask_fault, pair.mask)
        if seen.cell is not None:
            cells[pair.image] = seen.cell
    for what, sizes in found.sizes.items():
        if len(sizes) > 1:
            common = sizes.most_common(1)[0][0]
            found.faults.add(f"{what} of another size than most ({common[0]}x{common[1]})", count=sizes.total() - sizes[common])
    return [cells[name] for name in on_sheet if name in cells]


def mask_fault(mask: Image.Image) -> str | None:
    """The kind of fault that a mask (L) has, or None."""
    classes = mask_classes(mask)
    if classes:
        return "mask that is a map of classes" if classes[-1] > 1 else "mask of 0 and 1 instead of 0 and 255"
    return None if highest_level(mask) >= HEAD_LEVEL else "mask that marks no head"


def _spread(pairs: list[Pair], cameras: dict[str, torch.Tensor]) -> dict[str, None]:
    """The images for the contact sheet, evenly spaced in the order of their yaws, with those without a camera last."""

    def yaw(name: str) -> float:
        return camera_utils.yaw_pitch_roll_degrees(cameras[name])[0].item() if name in cameras else math.inf

    names = sorted((pair.image for pair in pairs), key=yaw)
    chosen = np.linspace(0, len(names) - 1, min(SHEET_SAMPLES, len(names))).round().astype(int)
    return dict.fromkeys(names[index] for index in chosen)


def _describe_cameras(cameras: dict[str, torch.Tensor]) -> list[str]:
    if not cameras:
        return []
    labels = torch.stack(list(cameras.values()))
    cam2world, intrinsics = camera_utils.unpack_label(labels)
    angles = camera_utils.yaw_pitch_roll_degrees(labels)
    spans = {
        "radius": (cam2world[:, :3, 3].norm(dim=1), "{:.3f}"),
        "focal": (intrinsics.diagonal(dim1=1, dim2=2)[:, :2], "{:.4f}"),
        "pitch": (angles[:, 1], "{:.1f}"),
        "roll": (angles[:, 2], "{:.1f}"),
    }
    text = [f"{name} {form.format(v.min())} to {form.format(v.max())}" for name, (v, form) in spans.items()]
    return [f"cameras   {', '.join(text)}", "yaw in degrees", *yaw_histogram(angles[:, 0])]


def _sizes(sizes: collections.Counter) -> str:
    return ", ".join(f"{count} of {width}x{height}" for (width, height), count in sizes.most_common(5)) or "none to be read"


def _notes(sizes: dict[str, collections.Counter]) -> list[str]:
    """Notes on what training would refuse and a conversion would fix."""
    odd = [size for size in sizes["image"] if size[0] != size[1] or not is_power_of_two(size[0])]
    if odd:
        return [f"note: {odd[0][0]}x{odd[0][1]} is no square power of two; convert with --resolution before training"]
    if sizes["image"] != sizes["mask"]:
        return ["note: masks are not as large as their images; convert before training"]
    return []
