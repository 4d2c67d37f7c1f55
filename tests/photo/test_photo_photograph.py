"""Reading photos of every kind, and cutting frames out of them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dnnlib import UserError
from photo.frame import Frame
from photo.photograph import Photo, read_photo


def ramp(width=200, height=160):
    """Red grows with x and green with y, one level per pixel, so a colour shows its origin."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, np.full_like(x, 60)], axis=-1).astype(np.uint8))


def places(picture):
    """Where in the ramp each pixel of a cut [H, W, 2] is from, in pixels."""
    return np.asarray(picture).astype(np.float64)[..., :2] + 0.5


@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi / 2, np.pi, -2.0])
@pytest.mark.parametrize("size,pixels", [(12.0, 32), (30.0, 30), (32.0, 8)])
def test_a_cut_shows_what_the_frame_says(angle, size, pixels):
    y, x = np.mgrid[:60, :62]
    photo = Photo(Image.fromarray(np.stack([4 * x, 4 * y, 0 * x], axis=-1).astype(np.uint8)))  # four levels a pixel
    frame = Frame((31.3, 29.6), size, angle)
    steps = (np.arange(pixels) + 0.5) / pixels
    expected = frame.to_photo(np.stack(np.meshgrid(steps, steps), axis=-1))
    for cut in (photo.cut(frame, pixels), photo.cut_filled(frame, pixels)):
        found = np.asarray(cut)[..., :2] / 4 + 0.5
        assert np.abs(found - expected).max() < 0.4  # the levels are whole numbers, a quarter of a pixel each


def test_outside_the_photo_a_plain_cut_is_black_and_a_filled_one_is_mirrored():
    photo, frame = Photo(ramp()), Frame((0.0, 80.0), 80.0)
    assert not np.asarray(photo.cut(frame, 80))[:, :36].any()
    filled = places(photo.cut_filled(frame, 80))
    assert filled[40, 79, 0] == pytest.approx(39.5, abs=1)
    assert filled[40, 38:42, 0].max() < 4  # the edge joins
    assert filled[40, 5, 0] == pytest.approx(34.5, abs=2)  # 34.5 pixels left of the edge shows what is as far right of it


def test_what_is_mirrored_is_blurred_and_what_is_photo_is_not():
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    filled = np.asarray(Photo(Image.fromarray(noise)).cut_filled(Frame((0.0, 64.0), 128.0), 128)).astype(float)
    assert filled[:, :50].std() < 0.3 * filled[:, 64:].std()
    assert np.abs(filled[:, 66:] - noise[:, 2:64]).mean() < 25


def test_a_frame_far_larger_than_the_photo_is_filled_too():
    filled = Photo(ramp(40, 30)).cut_filled(Frame((20.0, 15.0), 300.0), 64)
    assert filled.size == (64, 64) and np.asarray(filled).min(axis=2).max() > 0


def test_large_frames_do_not_alias():
    """A checkerboard of single pixels is grey from afar, not a moiré of black and white."""
    board = np.indices((512, 512)).sum(axis=0) % 2 * 255
    cut = np.asarray(Photo(Image.fromarray(board.astype(np.uint8))).cut_filled(Frame((256.0, 256.0), 480.0, 0.1), 64))
    assert np.abs(cut.astype(int) - 127).max() < 12


def test_the_share_of_a_frame_inside():
    photo = Photo(ramp())
    assert photo.share_inside(Frame((100.0, 80.0), 50.0)) == 1
    assert photo.share_inside(Frame((0.0, 80.0), 50.0)) == pytest.approx(0.5, abs=0.02)


def save(path, picture, **options):
    picture.save(path, **options)
    return path


def test_photos_of_many_kinds_are_read(tmp_path):
    picture = ramp()
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned: rows are columns
    turned = save(tmp_path / "exif.jpg", picture.rotate(90, expand=True), exif=exif, quality=95)
    kinds = [
        save(tmp_path / "cmyk.jpg", picture.convert("CMYK"), quality=95),
        save(tmp_path / "alpha.png", picture.convert("RGBA")),
        save(tmp_path / "rgb.png", picture),
        turned,
    ]
    for path in kinds:
        whole = places(read_photo(path).reduced((200, 160)))
        assert whole[20, 150] == pytest.approx([150.5, 20.5], abs=12), path.name
    grey = save(tmp_path / "grey16.png", Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257))
    expected = np.asarray(picture.convert("L"))[20, 150]
    assert np.asarray(read_photo(grey).reduced((200, 160)))[20, 150] == pytest.approx([expected] * 3, abs=1)


def png_header(width, height):
    """The start of a PNG file of this size, without pixels: enough to be measured."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\0IDAT"


def test_each_bad_file_is_refused_in_one_line(tmp_path):
    jpeg = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(jpeg, "jpeg")
    ramp().save(tmp_path / "animated.gif", save_all=True, append_images=[ramp().rotate(90)])
    contents = {
        "text.jpg": (b"hello", "not a picture"),
        "empty.png": (b"", "not a picture"),
        "cut.jpg": (jpeg.getvalue()[:5000], "damaged"),
        "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(100), "HEIC"),
        "tiny.png": (png_header(20, 20), "too small"),
        "large.png": (png_header(13_100, 13_100), "172 megapixels"),
        "bomb.png": (png_header(60_000, 60_000), "megapixels"),
        "animated.gif": ((tmp_path / "animated.gif").read_bytes(), "animated"),
    }
    for name, (content, message) in contents.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=message) as caught:
            read_photo(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_photo(tmp_path / "nowhere.jpg")
