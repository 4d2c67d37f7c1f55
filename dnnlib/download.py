"""Opens files by path or URL.  Downloads are checked and kept in a cache folder."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import requests

from .cli import progress
from .util import UserError, atomic_path, existing_path, make_output_dir

MAX_DOWNLOAD = 16 * 2**30  # bytes; far more than any network of this family needs
_TIMEOUT = (15, 60)  # seconds to connect, and between two parts of the response
_CHUNK = 2**20  # bytes


class Unreachable(UserError):
    """There was no connection, or it broke off.  Trying again may help."""


def is_url(path_or_url: str | os.PathLike) -> bool:
    """Whether `path_or_url` is a URL of any scheme rather than a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", os.fspath(path_or_url)) is not None


def open_url(
    path_or_url: str | os.PathLike,
    cache_dir: str | os.PathLike | None = None,
    allow_http: bool = False,
    max_bytes: int = MAX_DOWNLOAD,
    show_progress: bool = True,
) -> BinaryIO:
    """Open the file at a path or https URL for reading bytes.  Its `name` is the path on this machine.

    A URL is downloaded once into `cache_dir` (see `default_cache_dir`), and again if the cached file no longer has its original
    size.  Plain http is refused unless `allow_http`.  Raises UserError with the reason if the file cannot be had.
    """
    if is_url(path_or_url):
        path = _cached(os.fspath(path_or_url), cache_dir, allow_http, max_bytes, show_progress)
    else:
        path = existing_path(path_or_url, "file")
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def default_cache_dir() -> Path:
    """The cache folder: $MULTI_POSE_CACHE, or else multi_pose in $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("MULTI_POSE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "multi_pose"


def _cached(
    url: str, cache_dir: str | os.PathLike | None, allow_http: bool, max_bytes: int, show_progress: bool
) -> Path:
    """Path of the cached file of `url`, downloaded if necessary.  A note beside it records the URL and the size."""
    scheme, location = _split(url)
    if scheme not in ("https", "http"):
        raise UserError(f"{url}: only https URLs can be downloaded, not {scheme}; give the path of a copy")
    if scheme == "http" and not allow_http:
        raise UserError(f"{url}: plain http can be tampered with on the way; use https, or give the path of a copy")
    cache = Path(cache_dir or default_cache_dir())
    path = cache / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{_readable_name(location)}"
    note = path.with_name(path.name + ".json")
    if _is_complete(path, note):
        return path
    try:
        make_output_dir(cache)
    except UserError as error:
        raise UserError(f"{error} by setting MULTI_POSE_CACHE") from None
    try:
        with atomic_path(path) as temporary:
            size = _download(url, temporary, allow_http, max_bytes, show_progress)
        with atomic_path(note) as temporary:
            temporary.write_text(json.dumps(dict(url=url, size=size)))
    except requests.RequestException as error:
        kind = Unreachable if isinstance(error, (requests.ConnectionError, requests.Timeout)) else UserError
        raise kind(f"{url} could not be downloaded: {_reason(error)}; try again, or give the path of a copy") from None
    except OSError as error:
        raise UserError(f"{url} could not be saved in {cache}: {error.strerror}; make room or set MULTI_POSE_CACHE") from None
    return path


def _split(url: str) -> tuple[str, str]:
    """Scheme and path of a URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise UserError(f"{url} is not a valid URL") from None
    return parts.scheme.lower(), parts.path


def _readable_name(location: str) -> str:
    """The last part of a URL's path, reduced to characters that every file system accepts."""
    name = unquote(location).rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-64:] or "download"


def _is_complete(path: Path, note: Path) -> bool:
    try:
        return path.stat().st_size == json.loads(note.read_text())["size"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _download(url: str, path: Path, allow_http: bool, max_bytes: int, show_progress: bool) -> int:
    """Download `url` to `path` and return the size in bytes."""
    with requests.Session() as session:
        if not allow_http:
            del session.adapters["http://"]  # so that a redirect cannot lead back to http
        # A compressed response would have a different length than announced.
        with session.get(url, stream=True, timeout=_TIMEOUT, headers={"Accept-Encoding": "identity"}) as response:
            response.raise_for_status()
            if "text/html" in response.headers.get("Content-Type", ""):
                raise UserError(f"{url} is a web page, not a file; use the link of the file itself")
            expected = response.headers.get("Content-Length")
            expected = int(expected) if expected and expected.isdecimal() else None
            if expected is not None and expected > max_bytes:
                raise _too_large(url, max_bytes)
            size = _receive(response, path, url, expected, max_bytes, show_progress)
    if size == 0 or expected not in (None, size):
        raise UserError(f"{url}: the download broke off after {size} bytes{f' of {expected}' if expected else ''}; try again")
    return size


def _receive(
    response: requests.Response, path: Path, url: str, expected: int | None, max_bytes: int, show_progress: bool
) -> int:
    size = 0
    bar = progress(total=expected, unit="B", unit_scale=True, unit_divisor=1024, desc="download", disable=not show_progress)
    with open(path, "wb") as file, bar:
        for chunk in response.iter_content(_CHUNK):
            size += len(chunk)
            if size > max_bytes:
                raise _too_large(url, max_bytes)
            file.write(chunk)
            bar.update(len(chunk))
    return size


def _too_large(url: str, max_bytes: int) -> UserError:
    return UserError(f"{url} is larger than the limit of {max_bytes} bytes; if the size is right, give the path of a copy")


def _reason(error: requests.RequestException) -> str:
    """Summarise the error in a few words, instead of a chain of exceptions."""
    if error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    return next((text for kind, text in _REASONS.items() if isinstance(error, kind)), type(error).__name__)


_REASONS = {  # the first match counts
    requests.Timeout: "the server did not answer in time",
    requests.exceptions.SSLError: "the server's certificate is not valid",
    requests.exceptions.ChunkedEncodingError: "the connection broke off",
    requests.ConnectionError: "no connection to the server",
    requests.exceptions.InvalidSchema: "it leads to a URL that is not https",
    requests.exceptions.InvalidURL: "the URL is not valid",
}
