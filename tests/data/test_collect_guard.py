"""What `collect` asks of servers: through the guard, and nothing of a private network."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import rasterio

from rs_models.data.collect import CollectConfig, addresses, collect, stac
from rs_models.data.collect.addresses import resolved, trust
from rs_models.data.collect.guard import guarded
from rs_models.data.collect.scenes import GDAL, gdal_address, open_scene
from rs_models.data.collect.stac import Client
from rs_models.errors import ServiceError, UserError
from tests.predict import helpers

ANSWER = {"type": "Catalog", "links": []}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No test depends on the proxies of the machine that runs it, or on whom another trusts."""
    monkeypatch.setattr(addresses, "_TRUSTED", set())
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)


class Sends(BaseHTTPRequestHandler):
    """What the server's `answers` says of a path: bytes, or the address of a redirect."""

    def do_GET(self):
        self.server.asked.append(self.path)
        self.server.hosts.append(self.headers["Host"])
        path = self.path.partition("?")[0]
        content = self.server.answers.get(path, b"")
        content = content(self.path) if callable(content) else content
        self.send_response(302 if isinstance(content, str) else 200)
        if isinstance(content, str):
            self.send_header("Location", content)
            content = b""
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            with suppress(OSError):  # a client that has enough
                self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Sends) as started:
        started.answers, started.asked, started.hosts = {}, [], []
        started.url = f"http://127.0.0.1:{started.server_port}"
        started.elsewhere = f"http://localhost:{started.server_port}"  # which nobody trusts
        trust(started.url)  # as `find_scenes` does with what the user names
        threading.Thread(target=started.serve_forever, daemon=True).start()
        yield started
        started.shutdown()


def test_a_redirect_into_another_private_host_is_not_followed(server):
    server.answers["/catalog.json"] = f"{server.elsewhere}/secret"
    with pytest.raises(UserError, match="an address of a private network"):
        Client(0, None).read(f"{server.url}/catalog.json")
    assert server.asked == ["/catalog.json"]


def test_gdal_reads_through_a_guard_that_follows_no_redirect_into_a_private_network(
    server, tmp_path, caplog
):
    """GDAL follows redirects itself: without the guard the scene was read from the other host."""
    image, place = helpers.pixels(32, 32), helpers.from_origin(5e5, 5e6, 10, 10)
    helpers.write(tmp_path / "a.tif", image, transform=place)
    server.answers = {
        "/a.tif": (tmp_path / "a.tif").read_bytes(),
        "/near.tif": f"{server.url}/a.tif",
        "/far.tif": f"{server.elsewhere}/a.tif",
    }
    for name in ("a.tif", "near.tif", "a.tif?key=a%2Fb"):
        with open_scene(gdal_address(f"{server.url}/{name}")) as raster:
            np.testing.assert_array_equal(raster.read(), image)
    assert "/a.tif?key=a%2Fb" in server.asked
    server.asked.clear()
    with pytest.raises(UserError, match="403"):
        open_scene(gdal_address(f"{server.url}/far.tif"))
    assert set(server.asked) == {"/far.tif"}
    assert "leads to localhost" in caplog.text


def test_a_scene_that_leads_into_a_private_network_is_told_as_one(server, tmp_path):
    """It was told as a server that does not answer, with exit 1 and the word to try later."""
    asset = {"href": f"{server.url}/led_{tmp_path.name}.tif", "type": "image/tiff"}
    item = {"type": "Feature", "id": "a", "properties": {}, "links": []}
    (tmp_path / "item.json").write_text(json.dumps(item | {"assets": {"visual": asset}}))
    server.answers[f"/led_{tmp_path.name}.tif"] = f"{server.elsewhere}/a.tif"
    wanted = CollectConfig(
        scenes=str(tmp_path / "item.json"), output=str(tmp_path / "out"), n=2, tile=256
    )
    with pytest.raises(UserError, match=r"private network \(localhost\).*name that host yourself"):
        collect(wanted, progress=False)


@pytest.mark.parametrize("listed", ["*", "localhost,127.0.0.1", ".localhost, localhost"])
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_no_proxy_is_no_way_past_the_guard(server, tmp_path, monkeypatch, name, listed):
    """Curl asked the hosts of this variable directly, wherever it was redirected to."""
    image = helpers.pixels(32, 32)
    helpers.write(tmp_path / "a.tif", image, transform=helpers.from_origin(5e5, 5e6, 10, 10))
    server.answers = {
        "/a.tif": (tmp_path / "a.tif").read_bytes(),
        "/far.tif": f"{server.elsewhere}/a.tif",
    }
    monkeypatch.setenv(name, listed)
    with pytest.raises(UserError, match="403"):
        open_scene(gdal_address(f"{server.url}/far.tif"))
    assert set(server.asked) == {"/far.tif"}
    with open_scene(gdal_address(f"{server.url}/a.tif")) as raster:
        np.testing.assert_array_equal(raster.read(), image)
    assert os.environ[name] == listed  # other clients of this process still have it


class Forwards(BaseHTTPRequestHandler):
    """A company's proxy."""

    def do_GET(self):
        self.server.passed.append((self.path, self.headers.get("Proxy-Authorization")))
        self.send_response(200)
        content = self.server.answers[self.path]
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            with suppress(OSError):
                self.wfile.write(content)

    do_HEAD = do_GET

    def do_CONNECT(self):
        self.server.passed.append((self.path, self.headers.get("Proxy-Authorization")))
        self.send_error(403, "Not for you")

    def log_message(self, *args):
        pass


@pytest.fixture
def company(monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Forwards) as started:
        started.answers, started.passed = {}, []
        proxy = f"http://ada:word%20two@127.0.0.1:{started.server_port}"
        monkeypatch.setenv("http_proxy", proxy), monkeypatch.setenv("https_proxy", proxy)
        threading.Thread(target=started.serve_forever, daemon=True).start()
        yield started
        started.shutdown()


LOGIN = "Basic YWRhOndvcmQgdHdv"  # ada:word two


def test_the_guard_goes_through_the_machines_own_proxy(company, server, tmp_path, monkeypatch):
    """Names that only that proxy can look up are its own to look up; private ones are refused."""
    image = helpers.pixels(32, 32)
    helpers.write(tmp_path / "a.tif", image, transform=helpers.from_origin(5e5, 5e6, 10, 10))
    monkeypatch.setattr("rs_models.data.collect.guard.is_private", lambda host: host == "10.0.0.1")
    base = "http://stac.example"
    company.answers = {
        f"{base}/c.json": json.dumps(ANSWER).encode(),
        f"{base}/a.tif": (tmp_path / "a.tif").read_bytes(),
    }
    client = Client(0, None)
    assert client.read(f"{base}/c.json") == ANSWER
    with open_scene(gdal_address(f"{base}/a.tif")) as raster:
        np.testing.assert_array_equal(raster.read(), image)
    assert {path for path, _ in company.passed} == set(company.answers)
    assert {login for _, login in company.passed} == {LOGIN}
    company.passed.clear()
    with pytest.raises(UserError, match="leads to an address of a private network"):
        client.read("http://10.0.0.1/c.json")
    with pytest.raises(UserError, match="leads to an address of a private network"):
        client.read("https://10.0.0.1/c.json")
    with pytest.raises(UserError, match="403"):
        open_scene(gdal_address("http://10.0.0.1/a.tif"))
    assert company.passed == []
    with pytest.raises(ServiceError, match="403 Not for you"):
        client.read("https://stac.example/c.json")
    assert company.passed == [("stac.example:443", LOGIN)]
    company.passed.clear()
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # asked directly, and still looked at
    server.answers["/c.json"] = json.dumps(ANSWER).encode()
    assert client.read(f"{server.url}/c.json") == ANSWER
    assert company.passed == [] and server.asked == ["/c.json"]


@pytest.mark.parametrize(
    ("name", "proxy"),
    [("all_proxy", "socks5h://10.0.0.1:1080"), ("GDAL_HTTP_PROXY", "https://proxy:3128")],
)
def test_a_proxy_that_the_guard_cannot_go_through_is_told(monkeypatch, name, proxy):
    monkeypatch.setenv(name, proxy)
    for ask in (guarded, Client(0, None).read):
        with pytest.raises(UserError, match=r"set one as http://HOST:PORT"):
            ask("http://stac.example/a.tif")


def test_nobody_else_can_use_the_guard(server):
    place = guarded(server.url).partition("%40")[2].partition("&")[0].replace("%3A", ":")
    host, _, port = place.partition(":")
    for words in (
        f"GET {server.url}/a HTTP/1.0",
        f"CONNECT 127.0.0.1:{server.server_port} HTTP/1.0",
    ):
        with socket.create_connection((host, int(port)), 10) as asked:
            asked.sendall(f"{words}\r\n\r\n".encode())
            assert b" 407 " in asked.makefile("rb").readline()
    assert server.asked == []


def test_a_name_that_leads_elsewhere_the_second_time_is_refused(server, monkeypatch):
    """It was looked up for the check, and again for the connection."""
    answers = iter(["93.184.215.14", "127.0.0.1"])
    plain = socket.getaddrinfo

    def look_up(host, *args, **more):
        return plain(next(answers) if host == "rebinds.example" else host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    address = f"http://rebinds.example:{server.server_port}/c.json"
    assert resolved("http://93.184.215.14/", address) == address  # public, the first time
    with pytest.raises(UserError, match="leads to an address of a private network"):
        Client(0, None).read(address)
    assert server.asked == []


def test_the_address_that_was_looked_at_is_connected_to(server, monkeypatch):
    plain, looked_up = socket.getaddrinfo, []

    def look_up(host, *args, **more):
        if host == "stac.example":
            looked_up.append(host)
            host = "127.0.0.1"
        return plain(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    address = f"http://stac.example:{server.server_port}/c.json"
    trust(address)
    server.answers["/c.json"] = json.dumps(ANSWER).encode()
    looked_up.clear()
    assert Client(0, None).read(address) == ANSWER
    assert looked_up == ["stac.example"]
    assert server.hosts == [f"stac.example:{server.server_port}"]


@contextmanager
def secure_server(folder):
    """The server of these tests behind TLS, with a certificate of its own making for two names."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", key, "-out", certificate, "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    names = []
    context.sni_callback = lambda _, name, __: names.append(name)
    with ThreadingHTTPServer(("127.0.0.1", 0), Sends) as started:
        started.socket = context.wrap_socket(started.socket, server_side=True)
        started.answers, started.asked, started.hosts = {}, [], []
        started.names, started.certificate = names, certificate
        threading.Thread(target=started.serve_forever, daemon=True).start()
        yield started
        started.shutdown()


def test_https_goes_through_the_guard_and_certificates_are_checked(tmp_path, monkeypatch, caplog):
    image = helpers.pixels(32, 32)
    helpers.write(tmp_path / "a.tif", image, transform=helpers.from_origin(5e5, 5e6, 10, 10))
    with secure_server(tmp_path) as server:
        ours, theirs = (f"https://{n}:{server.server_port}" for n in ("localhost", "127.0.0.1"))
        trust(ours)
        server.answers = {
            "/c.json": json.dumps(ANSWER).encode(),
            "/far.json": f"{theirs}/c.json",
            "/a.tif": (tmp_path / "a.tif").read_bytes(),
            "/far.tif": f"{theirs}/a.tif",
        }
        with pytest.raises(ServiceError, match="certificate verify failed"):
            Client(0, None).read(f"{ours}/c.json")
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        assert Client(0, None).read(f"{ours}/c.json") == ANSWER
        assert server.names[-1] == "localhost"
        assert server.hosts == [f"localhost:{server.server_port}"]
        with pytest.raises(UserError, match="an address of a private network"):
            Client(0, None).read(f"{ours}/far.json")
        with pytest.raises(UserError, match="leads to an address of a private network"):
            Client(0, None).read(f"{theirs}/c.json")
        server.asked.clear()
        with rasterio.Env(**GDAL, GDAL_CURL_CA_BUNDLE=str(server.certificate)):
            with open_scene(gdal_address(f"{ours}/a.tif")) as raster:
                np.testing.assert_array_equal(raster.read(), image)
            assert set(server.asked) == {"/a.tif"}
            for address in (f"{ours}/far.tif", f"{theirs}/a.tif"):
                with pytest.raises(UserError, match=r"cannot be read as a raster .*403"):
                    open_scene(gdal_address(address))
        assert set(server.asked) == {"/a.tif", "/far.tif"}
        assert "leads to 127.0.0.1" in caplog.text


@pytest.mark.parametrize("name", ["s3://localhost:8000#/a.tif", "gs://h?/a.tif", "s3:///a.tif"])
def test_a_bucket_that_would_be_a_host_is_refused(tmp_path, name):
    """GDAL makes a bucket a part of the server's name, with what it may not hold."""
    for base in ("http://93.184.215.14/", str(tmp_path / "c.json")):
        with pytest.raises(UserError, match="no object of a bucket"):
            resolved(base, name)


@pytest.mark.parametrize("limit", ["_LARGEST", "_MOST_BYTES", "_MOST_PAGES"])
def test_catalogues_without_an_end_are_left(server, monkeypatch, limit):
    def page(path):
        following = {"rel": "next", "href": f"{server.url}/items?{len(server.asked)}"}
        return json.dumps(
            {"type": "FeatureCollection", "features": [{}] * 1000, "links": [following]}
        ).encode()

    server.answers["/items"] = page
    monkeypatch.setattr(stac, limit, {"_LARGEST": 1000, "_MOST_BYTES": 10_000}.get(limit, 7))
    with pytest.raises(UserError, match=r"name a (smaller )?part of it"):
        stac.items(f"{server.url}/items", stac.Client(0, None))
    assert len(server.asked) <= 7
