"""Crops anyone's photos in the way the training data are cropped, and adds the camera and mask of each head."""

from pathlib import Path

import click

from dnnlib import UserError, cli
from dnnlib.util import is_power_of_two
from photo.data_set import DataSetWriter, list_photos, prepare_all
from photo.options import Numbers, Points, WhichFace, hand_pose
from photo.prepare import LARGEST, MIN_FACE


def _check_resolution(ctx: click.Context, param: click.Parameter, value: int) -> int:
    if not is_power_of_two(value):
        raise click.BadParameter(f"{value} is not a power of two, such as 256 or 512")
    return value


@cli.command()
@click.option(
    "--source", required=True, type=click.Path(exists=True, path_type=Path), metavar="PHOTO|DIR", help="What to crop."
)
@click.option("--dest", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Where to create img/ and seg/.")
@click.option(
    "--resolution", type=click.IntRange(32, 4096), callback=_check_resolution, default=512, help="Side of the pictures."
)
@click.option("--face", type=WhichFace(), default=LARGEST, help="Which faces of a photo to use; 2 is the second largest.")
@click.option("--min-face", type=click.IntRange(min=1), default=MIN_FACE, help="Leave out faces with fewer pixels.")
@click.option(
    "--landmarker", type=click.Path(path_type=Path), metavar="PATH", help="face_landmarker.task.  [default: found or fetched]"
)
@click.option(
    "--segmenter", type=click.Path(path_type=Path), metavar="PATH", help="selfie_segmenter.tflite.  [default: the same]"
)
@click.option(
    "--pose", type=Numbers("yaw", "pitch", "roll", least=2), help="Orientation of a head without a visible face, in degrees."
)
@click.option("--points", type=Points(), help="With --pose: right eye, left eye and mouth in pixels; or named points.")
@click.option("--box", type=Numbers("left", "top", "right", "bottom"), help="With --pose: box around head and hair, in pixels.")
@click.option("--debug", type=bool, default=False, help="Draw what was found and made into debug/.")
def main(
    source: Path,
    dest: Path,
    resolution: int,
    face: str | int,
    min_face: int,
    landmarker: Path | None,
    segmenter: Path | None,
    pose: tuple[float, ...] | None,
    points: dict[str, tuple[float, float]] | None,
    box: tuple[float, ...] | None,
    debug: bool,
) -> None:
    """Make a data set from anyone's photos: find the face, estimate its camera, crop, and cut out the person.

    DEST/img gets pictures and dataset.json, DEST/seg the masks.  dataset_tool_seg.py, train.py and the inversion can read them
    directly.  Where the crop extends beyond the photo, the photo is mirrored and blurred.  Requires the package mediapipe.

    A head seen from behind or far from the side must be given by hand: --pose with --box (from the chin to the top of the
    hair), or with --points.  Points without names are the person's right eye, left eye and mouth, or where they would be behind
    the head.  Named points are two or more of right-eye, left-eye, nose, mouth, chin, right-ear, left-ear and crown; right and
    left are the person's.  With positive yaw the face points to the left of the picture.

    \b
      python dataset_tool_photo.py --source me.jpg --dest me --debug true
      python dataset_tool_photo.py --source back.jpg --dest back --pose 170,0 --box 310,120,560,420
      python dataset_tool_photo.py --source back.jpg --dest back --pose 170,0 \\
          --points "left-ear=320,300 right-ear=540,296 crown=430,130"
    """
    if dest.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{dest} is inside {source}, so its pictures would count as photos next time; choose a place outside")
    by_hand = hand_pose(pose, points, box)
    photos = list_photos(source)
    if by_hand and len(photos) > 1:
        raise UserError(f"--pose is for one photo, and {source} has {len(photos)}; give the photo itself")
    models = {"landmarker": landmarker, "segmenter": segmenter}
    options = {"which": face, "resolution": resolution, "min_face": min_face}
    with DataSetWriter(dest, debug) as writer, cli.progress(total=len(photos), unit="photo", leave=False) as bar:
        for line in prepare_all(photos, by_hand, models, writer, debug, **options):
            if line:
                bar.write(line)
            else:
                bar.update()
    click.echo(f"wrote {len(writer.labels)} heads of {resolution}x{resolution} to {dest / 'img'} and {dest / 'seg'}")


if __name__ == "__main__":
    main()
