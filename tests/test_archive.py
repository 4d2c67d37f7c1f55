"""Folders and zips read and written alike; damage, bombs and failures."""

import json
import math
import multiprocessing
import os
import pickle
import struct
import zipfile

import pytest

from dnnlib import UserError, archive
from dnnlib.archive import Archive, ArchiveWriter, read_labels, stem

FILES = {"a.png": b"first", "sub/b.jpg": b"second" * 1000, "dataset.json": b'{"labels": null}', "notes.txt": b""}


@pytest.fixture(params=["files.zip", "files"])
def place(request, tmp_path):
    """A zip and a folder with FILES."""
    with ArchiveWriter(tmp_path / "made" / request.param) as writer:
        for name, data in FILES.items():
            writer.write(name, data)
    return tmp_path / "made" / request.param


def test_what_was_written_is_read_back(place):
    with Archive(place) as files:
        assert files.names == sorted(FILES)
        assert {name: files.read(name) for name in files.names} == FILES
        assert files.image_names() == ["a.png", "sub/b.jpg"]
        with pytest.raises(UserError, match="has no file c.png"):
            files.read("c.png")


def test_zips_are_not_compressed_and_the_same_each_time(tmp_path):
    for name in ("a.zip", "b.zip"):
        with ArchiveWriter(tmp_path / name) as writer:
            writer.write("zeros", bytes(1000))
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        assert [entry.compress_type for entry in file.infolist()] == [zipfile.ZIP_STORED]
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_hidden_files_are_not_seen(tmp_path):
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as file:
        for name in ("a.png", "__MACOSX/._a.png", ".DS_Store", "sub/.hidden/b.png", "sub/"):
            file.writestr(name, b"")
    assert Archive(tmp_path / "mac.zip").names == ["a.png"]


def test_an_archive_can_be_pickled_while_open(place):
    files = Archive(place)
    files.read("a.png")
    assert pickle.loads(pickle.dumps(files)).read("a.png") == b"first"


def _read_many(files, name, results):
    results.put(all(files.read(name) == FILES[name] for _ in range(300)))


def test_a_fork_does_not_share_the_file_position(place):
    files = Archive(place)
    files.read("a.png")
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    children = [context.Process(target=_read_many, args=(files, name, results)) for name in ("a.png", "sub/b.jpg")]
    for child in children:
        child.start()
    assert all(files.read("sub/b.jpg") == FILES["sub/b.jpg"] for _ in range(300))
    assert [results.get(), results.get()] == [True, True]
    for child in children:
        child.join()


def test_places_that_are_no_archives(tmp_path):
    with pytest.raises(UserError, match="no such folder or zip"):
        Archive(tmp_path / "absent.zip")
    (tmp_path / "text.zip").write_text("not a zip")
    with pytest.raises(UserError, match="nor a complete .zip"):
        Archive(tmp_path / "text.zip")


def test_a_truncated_zip_is_refused(tmp_path):
    with ArchiveWriter(tmp_path / "files.zip") as writer:
        writer.write("a.png", bytes(5000))
    whole = (tmp_path / "files.zip").read_bytes()
    (tmp_path / "files.zip").write_bytes(whole[:3000])
    with pytest.raises(UserError, match="nor a complete .zip"):
        Archive(tmp_path / "files.zip")


def test_damage_inside_a_zip_names_the_file(tmp_path):
    with ArchiveWriter(tmp_path / "files.zip") as writer:
        writer.write("a.png", b"here are the bytes")
    damaged = (tmp_path / "files.zip").read_bytes().replace(b"the bytes", b"THE bytes")
    (tmp_path / "files.zip").write_bytes(damaged)
    with pytest.raises(UserError, match="cannot read a.png in .*CRC"):
        Archive(tmp_path / "files.zip").read("a.png")


def test_what_unpacks_to_too_much_is_refused(place, monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 5000)
    files = Archive(place)
    assert files.read("a.png") == b"first"
    with pytest.raises(UserError, match="sub/b.jpg in .* are not read"):
        files.read("sub/b.jpg")


def test_a_bomb_that_lies_about_its_size_unpacks_no_further(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", bytes(10_000_000))
    path.write_bytes(path.read_bytes().replace(struct.pack("<L", 10_000_000), struct.pack("<L", 10)))
    with pytest.raises(UserError, match="cannot read a.png"):
        Archive(path).read("a.png")


class Trouble(Exception):
    pass


@pytest.mark.parametrize("name", ["new/deep/files.zip", "new/deep/files"])
@pytest.mark.parametrize("error", [Trouble, KeyboardInterrupt])
def test_a_failure_leaves_nothing(tmp_path, name, error):
    with pytest.raises(error), ArchiveWriter(tmp_path / name) as writer:
        writer.write("sub/a.png", b"half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_an_older_zip(tmp_path):
    path = tmp_path / "files.zip"
    path.write_bytes(b"older")
    with pytest.raises(Trouble), ArchiveWriter(path) as writer:
        writer.write("a.png", b"half")
        raise Trouble
    assert path.read_bytes() == b"older" and list(tmp_path.iterdir()) == [path]


def test_a_folder_in_use_is_refused_and_kept(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="is not empty"), ArchiveWriter(tmp_path):
        pass
    assert (tmp_path / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize("name", ["file/files.zip", "file/files"])
def test_a_place_that_cannot_be_written(tmp_path, name):
    (tmp_path / "file").write_text("a file, not a folder")
    with pytest.raises(UserError, match="cannot write"), ArchiveWriter(tmp_path / name):
        pass
    assert os.listdir(tmp_path) == ["file"]


def test_names_that_lead_out_are_refused(tmp_path):
    with pytest.raises(ValueError), ArchiveWriter(tmp_path / "files") as writer:
        writer.write("../a.png", b"")


def test_stem_keeps_folders_and_inner_dots():
    assert stem("a/b.c.png") == "a/b.c" and stem("b.c.jpeg") == "b.c"


def labels_of(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    return read_labels(Archive(tmp_path))


def test_labels_may_be_numbers_or_text(tmp_path):
    labels = labels_of(tmp_path, json.dumps({"labels": [["a\\b.png", ["0.5", 1]], ["c.png", []]]}))
    assert labels == {"a/b.png": [0.5, 1.0], "c.png": []}


def test_labels_may_name_their_folder_and_say_nan(tmp_path):
    entries = [["./a.png", [1]], [".\\sub\\b.png", [2]], [".hidden/c.png", [math.nan]]]
    labels = labels_of(tmp_path, json.dumps({"labels": entries}))
    assert list(labels) == ["a.png", "sub/b.png", ".hidden/c.png"] and math.isnan(labels[".hidden/c.png"][0])


def test_no_labels(tmp_path):
    assert read_labels(Archive(tmp_path)) is None
    assert labels_of(tmp_path, '{"labels": null}') is None


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"labels": [', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("\xff\x00", "is not JSON"),
        ("[]", "must be of the form"),
        ('{"labels": {"a": [1]}}', "must be of the form"),
        ('{"labels": [["a.png", [1]], ["b.png", 3]]}', "entry 1 is not"),
        ('{"labels": [["a.png", "123"]]}', "entry 0 is not"),
        ('{"labels": [["a.png", ["left"]]]}', "entry 0 is not"),
        ('{"labels": [[7, [1]]]}', "entry 0 is not"),
    ],
)
def test_malformed_labels(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        labels_of(tmp_path, text)
    assert "\n" not in str(caught.value)
