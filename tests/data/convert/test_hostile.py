"""Archives and images of strangers that mean no good, or were made elsewhere."""

from __future__ import annotations

import struct
import zipfile
import zlib

import pytest

from rs_models.data.convert import convert
from rs_models.data.convert.items import read_mask
from rs_models.data.convert.layouts import LAYOUTS
from rs_models.data.convert.problems import BadFile
from rs_models.data.convert.source import gather
from rs_models.errors import UserError


def test_an_archive_that_would_fill_the_disk_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("zeros.bin", "w", force_zip64=True) as file:
            for _ in range(1_100):
                file.write(bytes(2**20))
    with pytest.raises(UserError, match=r"would become 1 files of 1\.1 GiB"):
        gather([tmp_path / "a.zip"], tmp_path / "scratch")
    assert not list((tmp_path / "scratch").rglob("*.bin"))


def test_names_with_backslashes_and_side_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("set\\sea\\1.jpg", "set/sea/._2.jpg", "__MACOSX/3.jpg", "Thumbs.db"):
            archive.writestr(name, b"x")
    files = gather([tmp_path / "a.zip"], tmp_path / "scratch")
    assert [name for name, _ in files] == ["set/sea/1.jpg"]


def test_a_text_that_calls_itself_tif_is_left_out(tmp_path):
    folder = tmp_path / "ucm" / "beach"
    folder.mkdir(parents=True)
    (folder / "beach00.tif").write_text(
        '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1" '
        'subClass="VRTRawRasterBand"><SourceFilename>/etc/passwd</SourceFilename>'
        "</VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(UserError, match="None of the images can be used"):
        convert("uc-merced", [tmp_path / "ucm"], tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ucm"]  # no litter


def test_a_header_of_more_pixels_than_can_be_held(tmp_path):
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunks = b""
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        checksum = zlib.crc32(kind + content)
        chunks += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    with pytest.raises(BadFile, match=r"exceeds limit|more than"):
        read_mask(LAYOUTS["loveda"], tmp_path / "bomb.png")
