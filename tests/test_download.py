"""Files by path and URL, tested with a server on this machine."""

import http.server
import io
import json
import threading

import pytest
import requests

from dnnlib import UserError
from dnnlib.download import default_cache_dir, is_url, open_url

CONTENT = bytes(range(256)) * 64


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT, with a different fault for each path, and records the requests."""

    def do_GET(self):
        self.server.requests.append(self.path)
        kind = self.path.split("/")[1]
        if kind == "missing":
            return self.send_error(404, "Not Found")
        if kind == "moved":
            self.send_response(302)
            self.send_header("Location", "/good/elsewhere.pkl")
            return self.end_headers()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8" if kind == "page" else "application/octet-stream")
        if kind != "unsized":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if kind == "truncated" else CONTENT)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests = []
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def fetch(url, cache, **kwargs):
    with open_url(url, cache_dir=cache, allow_http=True, **kwargs) as file:
        return file.read()


def complaint(url, cache, **kwargs):
    """The one-line error for `url`; the cache must be as empty afterwards as before."""
    with pytest.raises(UserError) as error:
        fetch(url, cache, **kwargs)
    assert url in str(error.value) and "\n" not in str(error.value)
    assert not cache.exists() or not list(cache.iterdir())
    return str(error.value)


@pytest.mark.parametrize("kind", ["good", "unsized", "moved"])
def test_downloads_once(server, tmp_path, kind):
    url = f"{server.url}/{kind}/some%20network.pkl?version=2"
    assert fetch(url, tmp_path) == CONTENT
    asked = len(server.requests)
    assert fetch(url, tmp_path) == CONTENT
    assert len(server.requests) == asked > 0
    assert [path.name[17:] for path in sorted(tmp_path.iterdir())] == ["some_network.pkl", "some_network.pkl.json"]


def test_urls_do_not_share_files(server, tmp_path):
    fetch(f"{server.url}/good/a.pkl", tmp_path)
    fetch(f"{server.url}/good/a.pkl?v=2", tmp_path)
    assert len(server.requests) == 2


@pytest.mark.parametrize("damage", ["file", "note", "no note"])
def test_fetches_again_what_changed_in_the_cache(server, tmp_path, damage):
    url = f"{server.url}/good/a.pkl"
    fetch(url, tmp_path)
    file, note = sorted(tmp_path.iterdir())
    assert json.loads(note.read_text()) == dict(url=url, size=len(CONTENT))
    if damage == "file":
        file.write_bytes(CONTENT[:100])
    elif damage == "note":
        note.write_text("{")
    else:
        note.unlink()
    assert fetch(url, tmp_path) == CONTENT
    assert len(server.requests) == 2


def test_failed_downloads_leave_one_line_and_no_file(server, tmp_path):
    cache = tmp_path / "cache"
    assert "404" in complaint(f"{server.url}/missing/a.pkl", cache)
    assert "broke off" in complaint(f"{server.url}/truncated/a.pkl", cache)
    assert "web page" in complaint(f"{server.url}/page/a.pkl", cache)
    assert "no connection" in complaint("http://127.0.0.1:1/a.pkl", cache)
    assert "larger" in complaint(f"{server.url}/good/a.pkl", cache, max_bytes=1000)
    assert "larger" in complaint(f"{server.url}/unsized/a.pkl", cache, max_bytes=1000)
    assert "not a valid URL" in complaint("https://[a/b.pkl", cache)
    assert "only https" in complaint("ftp://127.0.0.1/a.pkl", cache)


def test_plain_http_only_when_asked_for(server, tmp_path):
    with pytest.raises(UserError, match="use https"):
        open_url(f"{server.url}/good/a.pkl", cache_dir=tmp_path)
    assert not server.requests


@pytest.fixture
def https(monkeypatch):
    """`https(status, content, **headers)` sets the response to every https request; http is not affected."""
    answer = {}
    original = requests.adapters.HTTPAdapter.send

    def send(self, request, **kwargs):
        if not request.url.startswith("https"):
            return original(self, request, **kwargs)
        response = requests.Response()
        response.request, response.url = request, request.url
        response.status_code, response.raw = answer["status"], io.BytesIO(answer["content"])
        response.headers.update(answer["headers"])
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    return lambda status, content, **headers: answer.update(status=status, content=content, headers=headers)


def test_no_redirect_from_https_to_http(server, https, tmp_path):
    https(302, b"", Location=f"{server.url}/good/a.pkl")
    with pytest.raises(UserError, match="not https"):
        open_url("https://127.0.0.1/a.pkl", cache_dir=tmp_path)
    assert not server.requests and not list(tmp_path.iterdir())
    assert fetch("https://127.0.0.1/a.pkl", tmp_path) == CONTENT


@pytest.mark.parametrize("missing", [1, len(CONTENT)])
def test_short_downloads_are_noticed_here_too(https, tmp_path, missing):
    """The check must not rely on the HTTP library, whose older versions accept them."""
    https(200, CONTENT[missing:], **{"Content-Length": str(len(CONTENT))})
    assert "broke off" in complaint("https://127.0.0.1/a.pkl", tmp_path)


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="MULTI_POSE_CACHE"):
        fetch(f"{server.url}/good/a.pkl", tmp_path / "file")


def test_where_downloads_go(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MULTI_POSE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_cache_dir() == tmp_path / ".cache" / "multi_pose"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "xdg" / "multi_pose"
    monkeypatch.setenv("MULTI_POSE_CACHE", str(tmp_path / "mine"))
    assert default_cache_dir() == tmp_path / "mine"


def test_local_paths(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"abc")
    for given in (path, str(path)):
        with open_url(given) as file:
            assert file.read() == b"abc" and str(file.name) == str(path)
    with pytest.raises(UserError, match="not found"):
        open_url(tmp_path / "b.pkl")
    with pytest.raises(UserError, match="cannot be read"):
        open_url(tmp_path)
    assert is_url("https://a/b") and is_url("s3://a/b") and not is_url("C:\\a") and not is_url(path)
