"""Downloading, from a server of this process: nothing here reaches the net."""

import dataclasses
import functools
import hashlib
import io
import sys
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from numbanet import data
from numbanet.data import download

pytest.importorskip("pooch")


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder, and the address under which it is served."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "site"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def mnist_site(site, monkeypatch):
    folder, url = site
    hashes = {}
    for name in download.MNIST_FILES:
        content = name.encode()
        (folder / name).write_bytes(content)
        hashes[name] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(download, "MNIST_URL", url)
    monkeypatch.setattr(download, "MNIST_FILES", hashes)
    return folder


def cifar_site(site, tamper=False):
    folder, url = site
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in (*download.CIFAR10.files, "../outside.bin", "readme.html"):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    (folder / "cifar.tar.gz").write_bytes(packed.getvalue() + b"x" * tamper)
    sha256 = hashlib.sha256(packed.getvalue()).hexdigest()
    return dataclasses.replace(download.CIFAR10, url=url + "cifar.tar.gz", sha256=sha256)


def test_mnist_fetches_what_is_missing_and_keeps_what_is_there(tmp_path, mnist_site):
    mine = tmp_path / "mine"
    (mine / "mnist").mkdir(parents=True)
    kept = mine / "mnist" / "train-labels-idx1-ubyte"
    kept.write_bytes(b"mine")
    download.download_mnist(mine)
    assert kept.read_bytes() == b"mine"
    names = sorted(path.name for path in (mine / "mnist").iterdir())
    assert names == [
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte",
    ]


def test_nothing_is_fetched_unasked(tmp_path, mnist_site):
    with pytest.raises(FileNotFoundError):
        data.mnist(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_wrong_hash_is_an_error_and_leaves_no_file(tmp_path, mnist_site):
    (mnist_site / "train-images-idx3-ubyte.gz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz"):
        download.download_mnist(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("subfolder", ["", "MNIST/raw"])
def test_mnist_fetches_to_where_the_others_are(tmp_path, mnist_site, subfolder):
    mine = tmp_path / "mine"
    folder = mine / subfolder
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte").write_bytes(b"mine")
    download.download_mnist(mine)
    assert sorted(path.name for path in folder.iterdir()) == [
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte.gz",
    ]


def test_a_failed_download_keeps_what_was_there(tmp_path, mnist_site):
    (mnist_site / "train-labels-idx1-ubyte.gz").unlink()
    mine = tmp_path / "mine"
    mine.mkdir()
    with pytest.raises(OSError, match="train-labels"):
        download.download_mnist(mine)
    assert [path.name for path in (mine / "mnist").iterdir()] == ["train-images-idx3-ubyte.gz"]


def test_archive_is_unpacked_next_to_the_files_that_are_there(tmp_path, site):
    (tmp_path / "test_batch.bin").write_bytes(b"mine")
    archive = cifar_site(site)
    download.download_archive(archive, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*archive.files, "site"}
    assert (tmp_path / "test_batch.bin").read_bytes() == b"mine"


def test_archive_is_unpacked_in_its_folder_only(tmp_path, site):
    archive = cifar_site(site)
    mine = tmp_path / "mine"
    download.download_archive(archive, mine)
    assert [path.name for path in mine.iterdir()] == ["cifar-10-batches-bin"]
    folder = mine / "cifar-10-batches-bin"
    assert sorted(path.name for path in folder.iterdir()) == sorted(archive.files)
    assert (folder / "test_batch.bin").read_bytes() == b"abc"
    download.download_archive(dataclasses.replace(archive, url="http://127.0.0.1:9/"), mine)  # all there: no request


def test_archive_with_a_wrong_hash(tmp_path, site):
    with pytest.raises(ValueError, match="cifar.tar.gz"):
        download.download_archive(cifar_site(site, tamper=True), tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_without_pooch_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r'pip install "numbanet\[data\]"'):
        data.mnist(tmp_path, download=True)


def test_hashes_have_the_form_of_sha256():
    for sha256 in (*download.MNIST_FILES.values(), download.CIFAR10.sha256, download.CIFAR100.sha256):
        assert len(bytes.fromhex(sha256)) == 32
