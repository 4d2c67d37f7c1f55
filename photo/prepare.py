"""Turns one photo into training data: for each head a square picture, its mask and its label, or a reason why not."""

from dataclasses import dataclass

import torch
from PIL import Image

from .camera import View, first_frame_of, label_from_angles, view_of_box, view_of_points
from .faces import Face, FaceFinder
from .person_mask import PersonSegmenter
from .photograph import Photo

LARGEST, ALL = "largest", "all"
MIN_FACE = 64  # pixels; smaller faces would become pictures of 512 pixels without detail
MAX_ANGLES = {"yaw": 90.0, "pitch": 80.0, "roll": 50.0}  # degrees; the published limits
FRAME_RATIO = 1.08  # side of the final frame relative to the first, for a frontal face
RATIO_LIMITS = (0.7, 1.3)  # around it; the published limits
LEAST_INSIDE = 0.4  # share of the frame's area that must be in the photo, so that not too much has to be filled in
WHOLE_FACE = 0.95  # if fewer of a face's landmarks are in the photo, a note says that the rest is filled in
HAND_HINT = "give --pose yaw,pitch with --points or --box for a head whose face cannot be seen"


@dataclass(frozen=True)
class HandPose:
    """A head given by hand: yaw, pitch and roll in degrees, and its position as points (see `HEAD_POINTS`) or a box."""

    angles: tuple[float, float, float]
    points: dict[str, tuple[float, float]] | None = None
    box: tuple[float, float, float, float] | None = None

    def view(self) -> View:
        """The view that fits them.  Raises UserError if they do not describe a head."""
        label = label_from_angles(*self.angles)
        if self.points is not None:
            return view_of_points(label, self.points)
        if self.box is None:
            raise ValueError("a pose by hand needs points or a box")
        return view_of_box(label, self.box)


@dataclass(frozen=True)
class PreparedHead:
    """A head in the form of the training data."""

    image: Image.Image  # RGB
    mask: Image.Image  # L, 255 where the person is
    view: View
    face: Face | None  # the face that was found, unless the head was given by hand

    @property
    def label(self) -> torch.Tensor:
        """The camera [25], float32."""
        return self.view.label


@dataclass(frozen=True)
class PreparedPhoto:
    """The result for a photo: its heads, the reasons why others were left out, and further notes."""

    heads: list[PreparedHead]
    rejected: list[str]
    notes: list[str]


def prepare_photo(
    photo: Photo,
    segmenter: PersonSegmenter,
    finder: FaceFinder | None = None,
    pose: HandPose | None = None,
    which: str | int = LARGEST,
    resolution: int = 512,
    min_face: int = MIN_FACE,
) -> PreparedPhoto:
    """Prepare the heads of a photo: the one given by `pose`, or else the faces that `finder` finds.

    `which` is LARGEST, ALL or a number: 1 for the largest face, 2 for the next.  `resolution` is the side of picture and mask
    in pixels.  The longer side of a face must have at least `min_face` pixels in the photo.
    """
    if pose is not None:
        found: list[tuple[View, Face | None]] = [(pose.view(), None)]
        rejected: list[str] = []
        notes: list[str] = []
    else:
        if finder is None:
            raise ValueError("without a pose, a finder is needed")
        faces = finder.find(photo, every_size=which != LARGEST)
        found, rejected, notes = _choose(faces, which)
    heads = []
    for view, face in found:
        reason = _unfit(photo, view, face, min_face)
        if reason is None:
            image = photo.cut_filled(view.frame, resolution)
            mask = segmenter.mask(image)
            if mask is not None:
                heads.append(PreparedHead(image, mask, view, face))
                notes += _cut_face(photo, face)
                continue
            reason = "the segmenter sees no person where the head is; is the photo dark or a drawing?"
        rejected.append(reason)
    return PreparedPhoto(heads, rejected, notes)


def _choose(faces: list[Face], which: str | int) -> tuple[list[tuple[View, Face | None]], list[str], list[str]]:
    """The requested faces, the reasons why there are none, and notes for the user."""
    if not faces:
        return [], [f"no face found; {HAND_HINT}"], []
    if which == ALL:
        return [(face.view, face) for face in faces], [], []
    number = 1 if which == LARGEST else int(which)
    if number > len(faces):
        return [], [f"--face {number}, but only {len(faces)} found; faces are numbered by size"], []
    others = f"{len(faces)} faces; took the largest (--face 2 for the next, --face all for all)"
    notes = [others] if which == LARGEST and len(faces) > 1 else []
    return [(faces[number - 1].view, faces[number - 1])], [], notes


def _cut_face(photo: Photo, face: Face | None) -> list[str]:
    """A note if the photo's edge cuts the face."""
    inside = 1.0 if face is None else photo.share_covered(face.landmarks[:, :2])
    return [] if inside >= WHOLE_FACE else [f"only {inside:.0%} of a face is inside the photo; the rest is filled in"]


def _unfit(photo: Photo, view: View, face: Face | None, min_face: int) -> str | None:
    """The reason why a head cannot be used, or None."""
    if face is not None:
        if face.size < min_face:
            return f"the face is {face.size:.0f} pixels large, under {min_face}; use a larger photo or lower --min-face"
        for (name, limit), angle in zip(MAX_ANGLES.items(), view.angles):
            if abs(angle) > limit:
                return f"the face is seen with a {name} of {angle:.0f} degrees, over {limit:.0f}; {HAND_HINT}"
        ratio = view.frame.size / first_frame_of(face.landmarks).size / FRAME_RATIO
        if not RATIO_LIMITS[0] <= ratio <= RATIO_LIMITS[1]:
            return f"eyes, mouth and face do not agree on the size of the head (ratio {ratio:.2f}); is it a whole human face?"
    if not all(0 <= place < length for place, length in zip(view.frame.centre, photo.size)):
        return f"the middle of the head would be outside the photo of {photo.size[0]}x{photo.size[1]} pixels"
    inside = photo.share_inside(view.frame)
    if inside < LEAST_INSIDE:
        return f"only {inside:.0%} of the head's frame is inside the photo; use one that shows the whole head"
    return None
