"""dataset_tool_seg.py from its command line: what it writes, what it leaves out, and what it refuses."""

import io
import json
import math
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import dataset_tool_seg
from camera_utils import orbit_label
from dnnlib.archive import Archive

LABEL = orbit_label(0.3, 0.1)[0].tolist()


def make_source(tmp_path, names=("a.png", "b.jpg"), size=(32, 32), labels=True):
    """img/ with photos of different greys and labels as text, seg/ with masks: a disc each."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, pixels) for pixels in size))
    disc = Image.fromarray((x**2 + y**2 < 0.5).astype(np.uint8) * 255)
    for index, name in enumerate(names):
        for place, picture in (("img", Image.new("RGB", size, (10 * index + 10,) * 3)), ("seg", disc)):
            path = tmp_path / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path if place == "img" else path.with_suffix(".png"))
    if labels:
        entries = [[name, [str(number + index) for number in LABEL]] for index, name in enumerate(names)]
        (tmp_path / "img" / "dataset.json").write_text(json.dumps({"labels": entries}))


def run(tmp_path, *options, dest=("out/img.zip", "out/seg.zip")):
    """The command on img/ and seg/; `dest` in `tmp_path`."""
    places = {"img_source": "img", "seg_source": "seg"} | dict(zip(("img_dest", "seg_dest"), dest))
    arguments = [text for name, place in places.items() for text in (f"--{name}", str(tmp_path / place))]
    return CliRunner().invoke(dataset_tool_seg.main, [*arguments, *options])


def picture(archive, name):
    return Image.open(io.BytesIO(archive.read(name)))


def assert_refused(result, tmp_path, message, code):
    """One line gives the reason, and nothing is left behind."""
    assert result.exit_code == code, result.output
    errors = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and message in errors[0], result.output
    assert "Traceback" not in result.output
    assert {path.name for path in tmp_path.iterdir()} <= {"img", "seg"}


@pytest.mark.parametrize("dest", [("out/img.zip", "out/seg.zip"), ("out/img", "out/seg")])
def test_pairs_and_labels_are_written(tmp_path, dest):
    make_source(tmp_path, ["a.png", "sub/a.jpg"])
    result = run(tmp_path, "--resolution", "16x16", dest=dest)
    assert result.exit_code == 0, result.output
    assert "wrote 2 pairs of 16x16" in result.output and "left out 0" in result.output
    with Archive(tmp_path / dest[0]) as images, Archive(tmp_path / dest[1]) as masks:
        assert images.names == ["00000/img00000000.png", "00000/img00000001.png", "dataset.json"]
        assert masks.names == images.names[:2]
        for index, name in enumerate(masks.names):
            image, mask = picture(images, name), picture(masks, name)
            assert (image.mode, image.size) == ("RGB", (16, 16)) and image.getpixel((3, 9))[0] == pytest.approx(
                10 * index + 10, abs=1
            )
            assert (mask.mode, mask.size) == ("L", (16, 16)) and mask.getpixel((8, 8)) == 255 and mask.getpixel((0, 0)) == 0
        labels = json.loads(images.read("dataset.json"))["labels"]
    assert [name for name, _ in labels] == ["00000/img00000000.png", "00000/img00000001.png"]
    for index, (_, numbers) in enumerate(labels):
        assert numbers == pytest.approx([number + index for number in LABEL]) and all(isinstance(n, float) for n in numbers)


def test_zips_are_not_compressed_and_can_be_sources(tmp_path):
    make_source(tmp_path)
    assert run(tmp_path).exit_code == 0
    for name in ("img", "seg"):
        with zipfile.ZipFile(tmp_path / "out" / f"{name}.zip") as file:
            assert {entry.compress_type for entry in file.infolist()} == {zipfile.ZIP_STORED}
        (tmp_path / "out" / f"{name}.zip").rename(tmp_path / f"{name}.zip")
    options = ["--img_source", str(tmp_path / "img.zip"), "--seg_source", str(tmp_path / "seg.zip")]
    assert run(tmp_path, *options, dest=("again/img.zip", "again/seg.zip")).exit_code == 0
    assert (tmp_path / "again" / "img.zip").read_bytes() == (tmp_path / "img.zip").read_bytes()


def test_options_may_be_typed_with_either_dash(tmp_path):
    make_source(tmp_path)
    assert run(tmp_path, "--max_images", "1", "--use-basename", "true").exit_code == 0
    assert Archive(tmp_path / "out" / "img.zip").names == ["a.png", "dataset.json"]


def test_jpg_images_keep_png_masks_and_labels_follow(tmp_path):
    make_source(tmp_path)
    assert run(tmp_path, "--ext", "jpg", "--use_basename", "true").exit_code == 0
    with Archive(tmp_path / "out" / "img.zip") as images:
        assert images.names == ["a.jpg", "b.jpg", "dataset.json"] and picture(images, "a.jpg").format == "JPEG"
        assert [name for name, _ in json.loads(images.read("dataset.json"))["labels"]] == ["a.jpg", "b.jpg"]
    assert Archive(tmp_path / "out" / "seg.zip").names == ["a.png", "b.png"]


def test_equal_basenames_are_refused(tmp_path):
    make_source(tmp_path, ["one/a.png", "two/a.png"])
    assert_refused(run(tmp_path, "--use_basename", "true"), tmp_path, "leave --use_basename out", 1)


def test_a_source_without_labels_gives_null(tmp_path):
    make_source(tmp_path, labels=False)
    result = run(tmp_path)
    assert "without labels" in result.output
    assert json.loads(Archive(tmp_path / "out" / "img.zip").read("dataset.json")) == {"labels": None}


def test_what_is_left_out_is_counted_with_the_reason(tmp_path):
    make_source(tmp_path, ["a.png", "b.png", "c.png", "d.png", "e.png", "f.png", "g.png"])
    (tmp_path / "seg" / "a.png").unlink()
    (tmp_path / "img" / "b.png").unlink()
    (tmp_path / "img" / "c.png").write_bytes((tmp_path / "img" / "c.png").read_bytes()[:50])
    (tmp_path / "seg" / "d.png").write_text("no picture")
    Image.new("L", (32, 20)).save(tmp_path / "seg" / "e.png")
    (tmp_path / "img" / "README.txt").write_text("about")
    content = json.loads((tmp_path / "img" / "dataset.json").read_text())["labels"]
    content[5] = ["f.png", LABEL[:16]]
    (tmp_path / "img" / "dataset.json").write_text(json.dumps({"labels": content}))
    result = run(tmp_path)
    assert result.exit_code == 0, result.output
    assert "wrote 1 pairs" in result.output and "left out 8" in result.output
    for line in (
        "image without a mask: 1 (a.png)",
        "mask without an image: 1 (b.png)",
        "label without an image: 1 (b.png)",
        "image that cannot be read: 1 (c.png: ",
        "mask that cannot be read: 1 (d.png: not a picture)",
        "image and mask of different proportions: 1 (e.png: 32x32, mask 32x20)",
        "image whose label is not 25 numbers: 1 (f.png)",
        "file that is not a picture: 1 (README.txt)",
    ):
        assert line in result.output
    with Archive(tmp_path / "out" / "img.zip") as images:
        assert images.names == ["00000/img00000000.png", "dataset.json"]
        assert picture(images, images.names[0]).getpixel((0, 0)) == (70, 70, 70)  # g.png


def rewrite_labels(tmp_path, change):
    """dataset.json of img/ with `change(name, numbers)` for each entry."""
    path = tmp_path / "img" / "dataset.json"
    entries = json.loads(path.read_text())["labels"]
    path.write_text(json.dumps({"labels": [change(name, [float(n) for n in numbers]) for name, numbers in entries]}))


@pytest.mark.parametrize("prefix", ["./", ".\\"])
def test_labels_may_name_pictures_from_their_folder(tmp_path, prefix):
    make_source(tmp_path)
    rewrite_labels(tmp_path, lambda name, numbers: [prefix + name, numbers])
    result = run(tmp_path)
    assert "wrote 2 pairs" in result.output and "left out 0" in result.output


def test_labels_of_nan_are_called_so(tmp_path):
    make_source(tmp_path)
    rewrite_labels(tmp_path, lambda name, numbers: [name, [math.nan, *numbers[1:]] if name == "b.jpg" else numbers])
    assert "image whose label holds NaN or infinity: 1 (b.jpg)" in run(tmp_path).output


def test_masks_of_0_and_1_are_scaled(tmp_path):
    make_source(tmp_path)
    for path in (tmp_path / "seg").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(path)
    Image.new("L", (32, 32)).save(tmp_path / "seg" / "b.png")  # an empty mask stays one
    result = run(tmp_path)
    assert "fixed mask of 0 and 1, scaled to 0 and 255: 1 (a.png)" in result.output
    with Archive(tmp_path / "out" / "seg.zip") as masks:
        assert picture(masks, masks.names[0]).getextrema() == (0, 255)
        assert picture(masks, masks.names[1]).getextrema() == (0, 0)


def test_maps_of_classes_are_refused_with_the_classes(tmp_path):
    make_source(tmp_path)
    Image.fromarray(np.arange(32, dtype=np.uint8).clip(0, 18)[None].repeat(32, 0) // 6 * 5).save(tmp_path / "seg" / "b.png")
    assert_refused(run(tmp_path), tmp_path, "b.png is a map of classes (0, 5, 10, 15)", 1)
    Image.fromarray(np.arange(32, dtype=np.uint8)[None].repeat(32, 0)).save(tmp_path / "seg" / "b.png")
    assert_refused(run(tmp_path), tmp_path, "(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... up to 31)", 1)


def in_pixels(name, numbers):
    return [name, [*LABEL[:16], *(32 * n for n in LABEL[16:22]), *LABEL[22:]]]


def test_intrinsics_in_pixels_are_divided_by_the_width(tmp_path):
    make_source(tmp_path)
    rewrite_labels(tmp_path, in_pixels)
    result = run(tmp_path, "--resolution", "16x16")
    assert "fixed intrinsics in pixels, divided by the picture's width: 2 (a.png, b.jpg)" in result.output
    labels = json.loads(Archive(tmp_path / "out" / "img.zip").read("dataset.json"))["labels"]
    assert all(numbers == pytest.approx(LABEL) for _, numbers in labels)


def test_intrinsics_in_pixels_of_photos_that_are_not_square_are_refused(tmp_path):
    make_source(tmp_path, size=(32, 20))
    rewrite_labels(tmp_path, in_pixels)
    assert_refused(run(tmp_path, "--resolution", "16x16"), tmp_path, "the photo is 32x20", 1)


def test_images_without_a_label_are_left_out_where_others_have_one(tmp_path):
    make_source(tmp_path)
    (tmp_path / "img" / "dataset.json").write_text(json.dumps({"labels": [["b.jpg", LABEL]]}))
    result = run(tmp_path)
    assert "wrote 1 pairs" in result.output and "image without a label: 1 (a.png)" in result.output


def test_max_images_counts_what_is_written(tmp_path):
    make_source(tmp_path, ["a.png", "b.png", "c.png", "d.png"])
    (tmp_path / "img" / "a.png").write_text("no picture")
    result = run(tmp_path, "--max-images", "2")
    assert "wrote 2 pairs" in result.output and "pair beyond --max-images: 1" in result.output
    assert len(Archive(tmp_path / "out" / "seg.zip").names) == 2


def halves(size, axis):
    """A mask with a black and a white half along `axis` (0: left and right)."""
    level = np.zeros(size[::-1], dtype=np.uint8)
    level[:, size[0] // 2 :] = 255
    if axis == 1:
        level[:] = 0
        level[size[1] // 2 :] = 255
    return Image.fromarray(level)


def write_wide(tmp_path):
    """One photo of 64x32 with red ends and a green middle square, and a mask at half its size."""
    make_source(tmp_path, ["a.png"], size=(64, 32), labels=False)
    photo = Image.new("RGB", (64, 32), "red")
    photo.paste("lime", (16, 0, 48, 32))
    photo.save(tmp_path / "img" / "a.png")
    halves((32, 16), axis=0).save(tmp_path / "seg" / "a.png")


def only_pair(tmp_path):
    return [
        np.asarray(picture(Archive(tmp_path / "out" / f"{place}.zip"), "00000/img00000000.png")) for place in ("img", "seg")
    ]


def test_without_transform_the_whole_frame_is_squeezed(tmp_path):
    write_wide(tmp_path)
    assert run(tmp_path, "--resolution", "32x32").exit_code == 0
    image, mask = only_pair(tmp_path)
    assert image.shape == (32, 32, 3) and mask.shape == (32, 32)
    assert (image[:, [0, -1], 0] == 255).all() and (image[:, 16, 1] == 255).all()
    assert (mask[:, :15] == 0).all() and (mask[:, 17:] == 255).all()


def test_center_crop_keeps_the_middle_square_of_both(tmp_path):
    write_wide(tmp_path)
    assert run(tmp_path, "--resolution", "32x32", "--transform", "center-crop").exit_code == 0
    image, mask = only_pair(tmp_path)
    assert (image == (0, 255, 0)).all()  # cut, not resized: not a pixel of the ends
    assert (mask[:, :15] == 0).all() and (mask[:, 17:] == 255).all()


def test_center_crop_wide_pads_to_a_black_square(tmp_path):
    make_source(tmp_path, ["a.png"], size=(64, 64), labels=False)
    Image.new("RGB", (64, 64), "lime").save(tmp_path / "img" / "a.png")
    halves((64, 64), axis=1).save(tmp_path / "seg" / "a.png")
    assert run(tmp_path, "--resolution", "64x32", "--transform", "center-crop-wide").exit_code == 0
    image, mask = only_pair(tmp_path)
    assert image.shape == (64, 64, 3)
    assert (image[16:48] == (0, 255, 0)).all() and (image[:16] == 0).all() and (image[48:] == 0).all()
    assert (mask[:32] == 0).all() and (mask[32:48] == 255).all() and (mask[48:] == 0).all()


def test_masks_do_not_ring_when_resized(tmp_path):
    make_source(tmp_path, ["a.png"], size=(48, 48), labels=False)
    halves((48, 48), axis=0).point(lambda level: 50 + level // 2).save(tmp_path / "seg" / "a.png")
    for size in ("32x32", "64x64"):
        assert run(tmp_path, "--resolution", size).exit_code == 0
        mask = only_pair(tmp_path)[1][0].astype(int)
        assert mask.min() == 50 and mask.max() == 177 and (np.diff(mask) >= 0).all()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--resolution", "100x100"], "power of two"),
        (["--resolution", "64x32"], "the height the same"),
        (["--resolution", "2x2"], "from 4"),
        (["--resolution", "64"], "WxH"),
        (["--resolution", "32x64", "--transform", "center-crop-wide"], "the height at most the width"),
        (["--transform", "center-crop"], "needs --resolution"),
        (["--transform", "left"], "left"),
        (["--max-images", "0"], "max"),
        (["--ext", "gif"], "gif"),
        (["--sheet", "sheet.png"], "--check"),
        (["--check"], "leave out --img_dest, --seg_dest"),
    ],
)
def test_options_that_make_no_sense(tmp_path, options, message):
    make_source(tmp_path)
    assert_refused(run(tmp_path, *options), tmp_path, message, 2)


@pytest.mark.parametrize("dest", [("out.zip", "out.zip"), ("out", "out/seg.zip"), ("img", "out"), ("out", "seg")])
def test_destinations_that_collide(tmp_path, dest):
    make_source(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert_refused(run(tmp_path, dest=dest), tmp_path, "destination" if "img" in dest or "seg" in dest else "two places", 2)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_destination_is_needed(tmp_path):
    make_source(tmp_path)
    assert_refused(run(tmp_path, dest=()), tmp_path, "--img_dest is missing", 2)


def test_sizes_must_be_alike_without_resolution(tmp_path):
    make_source(tmp_path)
    Image.new("RGB", (16, 16)).save(tmp_path / "img" / "b.jpg")
    assert_refused(run(tmp_path), tmp_path, "b.jpg is 16 pixels wide and a.png 32; give --resolution", 1)


def test_sizes_must_be_powers_of_two_without_resolution(tmp_path):
    make_source(tmp_path, size=(30, 30))
    assert_refused(run(tmp_path), tmp_path, "a.png is 30x30", 1)


def test_sources_that_are_not_there_or_damaged(tmp_path):
    make_source(tmp_path)
    assert_refused(run(tmp_path, "--seg_source", str(tmp_path / "absent")), tmp_path, "absent", 1)
    (tmp_path / "seg" / "x.zip").write_bytes(b"PK\3\4 and no more")
    assert_refused(run(tmp_path, "--seg_source", str(tmp_path / "seg" / "x.zip")), tmp_path, "nor a complete .zip", 1)


def test_malformed_labels(tmp_path):
    make_source(tmp_path)
    (tmp_path / "img" / "dataset.json").write_text('{"labels": [["a.png"]]}')
    assert_refused(run(tmp_path), tmp_path, "dataset.json in", 1)


def test_nothing_to_write_says_why_and_leaves_nothing(tmp_path):
    make_source(tmp_path)
    for path in (tmp_path / "seg").iterdir():
        path.rename(path.with_stem(f"{path.stem}_mask"))
    result = run(tmp_path)
    assert_refused(result, tmp_path, "nothing to write: ", 1)
    assert "image without a mask: 2 (a.png, b.jpg)" in result.output


def test_a_folder_in_use_is_refused(tmp_path):
    make_source(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    result = run(tmp_path, dest=("img.zip", "out"))
    assert result.exit_code == 1 and "is not empty" in result.output
    assert not (tmp_path / "img.zip").exists() and (tmp_path / "out" / "mine").read_text() == "keep"
