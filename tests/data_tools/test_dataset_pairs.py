"""Every kind of picture becomes RGB, every kind of mask L; pairing by name."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from data_tools.pairs import Pair, Tally, Unusable, load_pair, map_in_order, pair_by_name
from dnnlib import UserError
from dnnlib.archive import Archive, ArchiveWriter
from training.decoding import decode_image, decode_mask

ORIENTATION = 0x0112  # EXIF tag


def encoded(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(*channel_levels):
    """A picture 4 wide and 2 high: 255 in its right half, the levels given in its left half."""
    pixels = np.full([2, 4, len(channel_levels)], 255, dtype=np.uint8)
    pixels[:, :2] = channel_levels
    return Image.fromarray(pixels[..., 0] if len(channel_levels) == 1 else pixels)


def rotated_exif(picture):
    """The file of a camera held sideways: its pixels lie on their side and the tag says so."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return encoded(picture.transpose(Image.Transpose.ROTATE_90), exif=exif)


def palette_with_transparency():
    picture = gradient(200, 100, 50).convert("P", palette=Image.Palette.ADAPTIVE)
    return encoded(picture, transparency=picture.getpixel((0, 0)))


def sixteen_bit(low, high):
    return encoded(Image.fromarray(np.array([[low, low, high, high]] * 2, dtype=np.uint16)))


IMAGES = {
    "rgb": (encoded(gradient(200, 100, 50)), (200, 100, 50)),
    "grey": (encoded(gradient(90)), (90, 90, 90)),
    "one bit": (encoded(gradient(0).convert("1")), (0, 0, 0)),
    "palette": (encoded(gradient(200, 100, 50).convert("P", palette=Image.Palette.ADAPTIVE)), (200, 100, 50)),
    "transparent palette": (palette_with_transparency(), (0, 0, 0)),
    "opaque rgba": (encoded(gradient(200, 100, 50, 255)), (200, 100, 50)),
    "transparent rgba": (encoded(gradient(200, 100, 50, 0)), (0, 0, 0)),
    "half transparent grey": (encoded(Image.merge("LA", [gradient(200), gradient(128)])), (100, 100, 100)),
    "16 bit": (sixteen_bit(25700, 65535), (100, 100, 100)),
    "cmyk": (encoded(gradient(0, 0, 0).convert("CMYK"), "TIFF"), (0, 0, 0)),
    "exif": (rotated_exif(gradient(200, 100, 50)), (200, 100, 50)),
    "bmp": (encoded(gradient(200, 100, 50), "BMP"), (200, 100, 50)),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images_of_every_kind_become_rgb(kind):
    data, left = IMAGES[kind]
    picture = decode_image(data)
    assert (picture.mode, picture.size, picture.info) == ("RGB", (4, 2), {})
    assert picture.getpixel((0, 1)) == left and picture.getpixel((3, 0)) == (255, 255, 255)


MASKS = {
    "grey": (encoded(gradient(90)), 90),
    "rgb": (encoded(gradient(90, 90, 90)), 90),
    "luminance": (encoded(gradient(255, 0, 0)), 76),  # 0.299 of red
    "alpha": (encoded(gradient(255, 255, 255, 40)), 40),
    "constant alpha": (encoded(gradient(90, 90, 90, 255)), 90),
    "one bit": (encoded(gradient(0).convert("1")), 0),
    "palette": (encoded(gradient(0, 0, 0).convert("P", palette=Image.Palette.ADAPTIVE)), 0),
    "transparent palette": (palette_with_transparency(), 0),
    "grey and alpha": (encoded(Image.merge("LA", [gradient(200), gradient(128)])), 128),
    "16 bit": (sixteen_bit(0, 65535), 0),
    "exif": (rotated_exif(gradient(90)), 90),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_every_kind_become_grey(kind):
    data, left = MASKS[kind]
    mask = decode_mask(data)
    assert (mask.mode, mask.size) == ("L", (4, 2))
    assert mask.getpixel((0, 1)) == left and mask.getpixel((3, 0)) == 255


def test_what_cannot_be_decoded_is_said_in_a_line():
    whole = encoded(Image.effect_noise((64, 64), 50))
    floats = encoded(Image.fromarray(np.ones([2, 2], dtype=np.float32)), "TIFF")
    for data, message in ((b"text", "not a picture"), (whole[: len(whole) // 2], "."), (floats, "floats")):
        with pytest.raises(UserError, match=message) as caught:
            decode_image(data)
        assert "\n" not in str(caught.value)


def sources(tmp_path, images, masks):
    archives = []
    for place, names in (("img", images), ("seg.zip", masks)):
        with ArchiveWriter(tmp_path / place) as writer:
            for name in names:
                writer.write(name, b"")
        archives.append(Archive(tmp_path / place))
    return archives


def test_pairs_by_relative_name_whatever_the_extension(tmp_path):
    images, masks = sources(
        tmp_path, ["a/x.jpg", "b/x.PNG", "y.v1.png", "y.v2.png"], ["a/x.png", "b/x.webp", "y.v1.png", "y.v2.bmp"]
    )
    left_out = Tally()
    pairs = pair_by_name(images, masks, left_out)
    assert [(pair.image, pair.mask) for pair in pairs] == [
        ("a/x.jpg", "a/x.png"),
        ("b/x.PNG", "b/x.webp"),
        ("y.v1.png", "y.v1.png"),
        ("y.v2.png", "y.v2.bmp"),
    ]
    assert left_out.total == 0 and left_out.lines() == []


def test_what_has_no_counterpart_is_counted(tmp_path):
    images, masks = sources(tmp_path, ["a/x.png", "p.png", "q.png", "q.jpg"], ["b/x.png", "p.png", "q.png"])
    left_out = Tally()
    assert pair_by_name(images, masks, left_out) == [Pair("p.png", "p.png")]
    assert set(left_out.lines()) == {
        "image without a mask: 1 (a/x.png)",
        "mask without an image: 2 (b/x.png, q.png)",
        "image with the name of another but for the extension: 2 (q.jpg and q.png, ...)",
    }


@pytest.mark.parametrize(
    "mask_size, fits",
    [((30, 20), True), ((15, 10), True), ((60, 40), True), ((17, 10), False), ((20, 30), False), ((100, 67), True)],
)
def test_a_mask_may_be_smaller_but_not_of_another_shape(tmp_path, mask_size, fits):
    for place, picture in (("img", Image.new("RGB", (30, 20))), ("seg", Image.new("L", mask_size))):
        (tmp_path / place).mkdir()
        picture.save(tmp_path / place / "a.png")
    images, masks = Archive(tmp_path / "img"), Archive(tmp_path / "seg")
    if fits:
        assert [picture.size for picture in load_pair(images, masks, Pair("a.png", "a.png"))] == [(30, 20), mask_size]
    else:
        with pytest.raises(Unusable, match="different proportions"):
            load_pair(images, masks, Pair("a.png", "a.png"))


def test_map_in_order_keeps_order_and_few_results():
    started, lock = set(), threading.Lock()

    def work(item):
        with lock:
            started.add(item)
        return item * item

    results = map_in_order(work, range(1000))
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert max(started) < 40  # the rest waits until it is asked for
    assert list(results) == [item * item for item in range(3, 1000)]


def test_map_in_order_raises_when_the_turn_comes():
    results = map_in_order(lambda item: 6 // item, [3, 2, 0, 1])
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)
