"""Data sets on disk: reads and writes folders and zips in the same way, including the labels in dataset.json."""

import contextlib
import json
import lzma
import os
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, Iterator

from PIL import Image

from .util import UserError, atomic_path, make_output_dir

LABELS_NAME = "dataset.json"
MAX_FILE_BYTES = 1 << 29  # no picture or label file is larger; anything that unpacks to more is a mistake or a zip bomb

_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError)  # RuntimeError: encrypted


def stem(name: str) -> str:
    """`name` without its extension, which an image and its mask have in common.  Folders are kept: ``a/b.png`` is ``a/b``."""
    return str(PurePosixPath(name).with_suffix(""))


class Archive:
    """The files of a folder or zip, by their relative names with ``/``.  Hidden files and __MACOSX are ignored.

    An archive can be pickled, and it can be used after a fork: each process opens the zip itself on its first read.

    Raises UserError if `path` does not exist, is neither a folder nor a zip, or cannot be listed.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        self._pid: int | None = None  # of the process that opened the zip
        self.is_zip = not self.path.is_dir()
        if self.is_zip and not self.path.exists():
            raise UserError(f"no such folder or zip: {self.path}")
        names = self._open_zip().namelist() if self.is_zip else _list_folder(self.path)
        self.names: list[str] = sorted({name for name in names if not name.endswith("/") and not _is_hidden(name)})

    def read(self, name: str) -> bytes:
        """Return the content of one file.  Raises UserError if it is missing, damaged, encrypted or implausibly large."""
        try:
            data = self._read_zip(name) if self.is_zip else self._read_folder(name)
        except (KeyError, FileNotFoundError):
            raise UserError(f"{self.path} has no file {name}") from None
        except _ZIP_ERRORS as error:
            raise UserError(f"cannot read {name} in {self.path}: {_reason(error)}") from None
        return data

    def image_names(self) -> list[str]:
        """The `names` with the extension of a picture format that Pillow opens."""
        known = {extension for extension, kind in Image.registered_extensions().items() if kind in Image.OPEN}
        return [name for name in self.names if PurePosixPath(name).suffix.lower() in known]

    def close(self) -> None:
        """Close the zip.  A later `read` opens it again."""
        if self._zip is not None and self._pid == os.getpid():
            self._zip.close()
        self._zip = None

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_zip": None, "_pid": None}

    def _open_zip(self) -> zipfile.ZipFile:
        if self._zip is None or self._pid != os.getpid():  # processes must not share a file position after a fork
            try:
                self._zip = zipfile.ZipFile(self.path)
            except zipfile.BadZipFile:
                raise UserError(
                    f"{self.path} is neither a folder nor a complete .zip; give another one or create it again"
                ) from None
            except OSError as error:
                raise UserError(f"cannot open {self.path}: {_reason(error)}") from None
            self._pid = os.getpid()
        return self._zip

    def _read_zip(self, name: str) -> bytes:
        archive = self._open_zip()
        size = archive.getinfo(name).file_size
        self._check_size(name, size)
        with archive.open(name) as file:
            return file.read(size)  # the size limits how much is unpacked

    def _read_folder(self, name: str) -> bytes:
        path = self.path / name
        self._check_size(name, path.stat().st_size)
        return path.read_bytes()

    def _check_size(self, name: str, size: int) -> None:
        if size > MAX_FILE_BYTES:
            limit = MAX_FILE_BYTES >> 20
            raise UserError(f"{name} in {self.path} would unpack to {size >> 20} MiB; files over {limit} MiB are not read")


class ArchiveWriter:
    """Writes a folder, or an uncompressed zip if `path` ends in .zip.  A context manager that writes everything or nothing.

    A zip gets its name, and replaces an older one, only when the block succeeds.  A folder must be new or empty; if the block
    fails, everything written to it is removed.  Missing parent folders are created, and removed again after a failure.

    Raises UserError if the place cannot be written to or is already in use.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.is_zip = self.path.suffix.lower() == ".zip"
        self._zip: zipfile.ZipFile | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "ArchiveWriter":
        with self._stack, _write_errors(self.path):  # undoes a start that fails half-way
            self._stack.enter_context(_new_folder(self.path.parent if self.is_zip else self.path))
            if self.is_zip:
                self._start_zip()
            elif any(self.path.iterdir()):
                raise UserError(f"the folder {self.path} is not empty; choose a new one, or remove it first")
            else:
                self._stack.enter_context(_emptied_on_failure(self.path))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc_info: Any) -> bool | None:
        with _write_errors(self.path):
            return self._stack.__exit__(*exc_info)

    def write(self, name: str, data: bytes) -> None:
        """Add one file.  `name` is relative, with ``/`` between folders."""
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{name!r} is not a name inside an archive")
        with _write_errors(self.path):
            if self._zip is not None:
                entry = zipfile.ZipInfo(name)  # its date is fixed, so that the same data give the same zip
                entry.external_attr = 0o644 << 16
                self._zip.writestr(entry, data)
            else:
                target = self.path / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)

    def _start_zip(self) -> None:
        if self.path.is_dir():
            raise UserError(f"{self.path} is a folder; choose another name for the zip")
        temporary = self._stack.enter_context(atomic_path(self.path))
        self._zip = self._stack.enter_context(zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED))


def read_labels(archive: Archive) -> dict[str, list[float]] | None:
    """Read the labels in dataset.json by file name.  Returns None if there is no such file or it has no labels.

    Numbers may be written as text, and names may have Windows separators or a leading ``./``.  The caller must check how many
    numbers there are, and whether they are finite.

    Raises UserError if the file is not ``{"labels": [[name, [numbers]], ...]}``.
    """
    if LABELS_NAME not in archive.names:
        return None
    where = f"{LABELS_NAME} in {archive.path}"
    try:
        content = json.loads(archive.read(LABELS_NAME))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {_reason(error)}") from None
    entries = content.get("labels") if isinstance(content, dict) else "not an object"
    if entries is None:
        return None
    if not isinstance(entries, list):
        raise UserError(f'{where} must be of the form {{"labels": [[name, [25 numbers]], ...]}}')
    labels = {}
    for index, entry in enumerate(entries):
        try:
            name, numbers = entry
            if isinstance(numbers, (str, dict)):
                raise TypeError
            labels[PurePosixPath(name.replace("\\", "/")).as_posix()] = [float(number) for number in numbers]
        except (TypeError, ValueError, AttributeError, OverflowError):
            raise UserError(f"{where}: entry {index} is not of the form [name, [25 numbers]]") from None
    return labels


def _list_folder(folder: Path) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise UserError(f"cannot list {error.filename}: {_reason(error)}")

    for parent, _, files in os.walk(folder, onerror=fail):
        for file in files:
            yield (Path(parent) / file).relative_to(folder).as_posix()


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _reason(error: Exception) -> str:
    """The cause of an error in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {_reason(error)}") from None


@contextlib.contextmanager
def _new_folder(path: Path) -> Iterator[None]:
    """Ensure that the folder `path` exists and is writable inside the block.  If the block fails, remove new folders again."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        make_output_dir(path)
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):  # not empty: somebody else has put files there
                folder.rmdir()
        raise


@contextlib.contextmanager
def _emptied_on_failure(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for entry in folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        raise
