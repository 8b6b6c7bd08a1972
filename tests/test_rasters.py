"""Rasters are what the caller expects: no other file, no address, no header that fills memory."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading

import numpy as np
import pytest
import rasterio

from rs_models.errors import UserError
from rs_models.rasters import open_raster
from tests.conftest import ROOT
from tests.predict.helpers import pixels, write

SECRET = b"root:x:0:0:root:/root:/bin/bash\n" * 40
RAW_VRT = """<VRTDataset rasterXSize="20" rasterYSize="20">
<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">
<SourceFilename relativetoVRT="0">{path}</SourceFilename></VRTRasterBand></VRTDataset>"""


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    return path


@pytest.mark.parametrize("name", ["x.tif", "x.png", "x.vrt", "x"])
def test_a_vrt_by_any_name_reads_no_other_file(tmp_path, secret, name):
    path = tmp_path / name
    path.write_text(RAW_VRT.format(path=secret))
    with rasterio.open(path) as raster:  # what it would give without the list of drivers
        assert raster.read().tobytes() == SECRET[:400]
    with pytest.raises(UserError, match=f"{name} cannot be read as a raster"):
        open_raster(path)
    with pytest.raises(UserError, match="the upload cannot be read as a raster"):
        open_raster(path.read_bytes(), name="the upload")


def test_a_vrt_that_the_user_names_is_one_only_by_its_suffix(tmp_path):
    write(tmp_path / "a.tif", pixels(20, 30))
    import rasterio.shutil

    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "a.vrt", driver="VRT")
    with open_raster(tmp_path / "a.vrt", vrt=True) as raster:
        assert raster.shape == (20, 30)
    (tmp_path / "b.tif").write_bytes((tmp_path / "a.vrt").read_bytes())
    with pytest.raises(UserError, match=r"b\.tif cannot be read as a raster"):
        open_raster(tmp_path / "b.tif", vrt=True)


def test_files_beside_an_image_are_images_too(tmp_path, secret):
    path = write(tmp_path / "a.tif", pixels(20, 30))
    for suffix in (".ovr", ".msk"):
        beside = tmp_path / f"a.tif{suffix}"
        beside.write_text(RAW_VRT.format(path=secret))
        with pytest.raises(UserError, match=f"a.tif{suffix} is no TIFF"):
            open_raster(path)
        beside.unlink()
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as raster:
        raster.build_overviews([2])
    assert (tmp_path / "a.tif.ovr").exists()
    with open_raster(path) as raster:
        assert raster.overviews(1) == [2]


@pytest.mark.parametrize("key", ["OVERVIEW_FILE", "overview_file", "OVERVIEW&#95;FILE"])
@pytest.mark.parametrize("where", ["itself", "beside", "of its overviews"])
def test_overviews_in_another_file_are_refused_however_they_are_named(tmp_path, key, where):
    """GDAL opens that file by whatever driver its content asks for: a VRT of anything."""
    write(tmp_path / "secret.tif", pixels(32, 32)[:1])
    band = (
        f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>{tmp_path}/'
        "secret.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
    )
    (tmp_path / "o").write_text(
        f'<VRTDataset rasterXSize="32" rasterYSize="32">{band}</VRTDataset>'
    )
    image = write(tmp_path / "a.tif", pixels(64, 64)[:1])
    named = image
    if where == "of its overviews":
        named = write(tmp_path / "a.tif.ovr", pixels(64, 64)[:1])
    if where == "beside":
        (tmp_path / "a.tif.aux.xml").write_text(
            f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="{key}">{tmp_path}/o</MDI>'
            "</Metadata></PAMDataset>"
        )
    else:
        with rasterio.open(named, "r+") as raster:
            raster.update_tags(ns="OVERVIEWS", **{key.replace("&#95;", "_"): str(tmp_path / "o")})
    with rasterio.open(image) as raster:
        assert raster.overviews(1) and str(tmp_path / "secret.tif") in raster.files
    with pytest.raises(UserError, match="refers to another file for its overviews"):
        open_raster(image)


def test_nothing_asks_an_address_unless_the_caller_allows_it(tmp_path):
    asked = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/x.tif"
    wms = f'<GDAL_WMS><Service name="TMS"><ServerUrl>{address}</ServerUrl></Service></GDAL_WMS>'
    (tmp_path / "wms.tif").write_text(wms)
    try:
        for source in (address, f"/vsicurl/{address}", tmp_path / "wms.tif"):
            with pytest.raises(UserError):
                open_raster(source)
        assert asked == []
        with pytest.raises(UserError, match="cannot be read as a raster"):
            open_raster(f"/vsicurl/{address}", addresses=True)
        assert asked
    finally:
        server.shutdown()


def test_a_header_of_400_000_pixels_a_side_is_refused_before_a_pixel_is_read(tmp_path):
    path = tmp_path / "huge.tif"
    huge = {"height": 400_000, "width": 400_000, "count": 1, "dtype": "uint8"}
    layout = {"tiled": True, "blockxsize": 8192, "blockysize": 8192, "sparse_ok": True}
    with rasterio.open(path, "w", driver="GTiff", bigtiff="yes", **huge, **layout):
        pass
    assert path.stat().st_size < 1_000_000
    code = (
        "import sys, time, resource, rasterio\n"
        "from rs_models.rasters import open_raster\n"
        "begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: open_raster(sys.argv[1])\n"
        "except ValueError as error: print(error)\n"
        "print(time.perf_counter() - begin)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    sentence, seconds, kilobytes = shown.stdout.splitlines()
    assert "huge.tif has 400,000 x 400,000 pixels" in sentence and sentence.endswith("tiles.")
    assert float(seconds) < 1 and int(kilobytes) < 200_000
    with open_raster(path, max_bytes=None) as raster:
        assert raster.shape == (400_000, 400_000)


def test_one_block_of_many_gigabytes_is_refused_whatever_the_limit(tmp_path):
    class Header:
        width, height, count, dtypes, block_shapes = (
            70_000,
            70_000,
            1,
            ["uint8"],
            [(70_000, 70_000)],
        )

    from rs_models.rasters import check_header

    with pytest.raises(UserError, match=r"stored in blocks of 4\.9 GB"):
        check_header(Header, "x.tif", None)


def test_what_is_not_there_or_damaged_is_told_by_name(tmp_path):
    with pytest.raises(UserError, match=r"a\.tif is not there"):
        open_raster(tmp_path / "a.tif")
    with pytest.raises(UserError, match="is a folder"):
        open_raster(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        open_raster(tmp_path / ("x" * 300 + ".tif"))
    (tmp_path / "b.tif").write_bytes(b"II*\0 not much")
    with pytest.raises(UserError, match=r"b\.tif cannot be read as a raster"):
        open_raster(tmp_path / "b.tif")


def test_content_is_read_as_a_file_is(tmp_path):
    image = pixels(20, 30)
    path = write(tmp_path / "a.tif", image)
    with open_raster(path.read_bytes()) as raster:
        np.testing.assert_array_equal(raster.read(), image)
