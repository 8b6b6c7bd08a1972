"""Headers that promise more than a machine holds: a sentence, quickly, and little memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib

import pytest

from rs_models.export import export
from tests.conftest import ROOT
from tests.data import make
from tests.support.models import nano, provenance

# Runs commands one after the other in a process that has imported everything; tells of each how it
# ended, in how many seconds, and by how many bytes the peak of the memory rose.
PROGRAM = """
import contextlib, io, json, resource, sys, time
import datasets, rasterio, torch, transformers
from rs_models import backbones, cli
from rs_models.commands import check, embed, evaluate, info
from rs_models.evaluation import embed as _, probe
cli.main(["embed", sys.argv[2], "--model", sys.argv[3], "--output", sys.argv[4]])
for argv in json.loads(sys.argv[1]):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, told = time.process_time(), io.StringIO()
    with contextlib.redirect_stderr(told):
        code = cli.main(argv)
    took = time.process_time() - start
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    print("answer", json.dumps([code, took, grown, told.getvalue()[-500:]]), flush=True)
"""


def chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(path, side):
    """A PNG that says it has so many pixels, of a few bytes each row."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 100_000, 9)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def tiff(path, side):
    """A sparse GeoTIFF that says it has so many pixels."""
    import rasterio

    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"width": side, "height": side, "count": 3, "dtype": "uint8", "crs": "EPSG:32631"}
    profile |= {"transform": rasterio.transform.from_origin(5e5, 5e6, 1, 1), "SPARSE_OK": True}
    profile |= {"tiled": True, "blockxsize": 4096, "blockysize": 4096, "BIGTIFF": "YES"}
    with rasterio.open(path, "w", driver="GTiff", **profile):
        pass


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_cannot_be_held_is_refused_before_it_is(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    backbone = nano("resnet_nano")
    model = tmp_path / "model"
    export(backbone, model, provenance=provenance(backbone, train_size=32), timm=False)
    make.class_folders(tmp_path / "good", {"a": 2, "b": 2})
    png(tmp_path / "png" / "a" / "0.png", 50_000)
    tiff(tmp_path / "tif" / "0.tif", 400_000)
    images = [{"bytes": make.png(make.pixels(i)), "path": None} for i in range(4)]
    (tmp_path / "labels").mkdir()
    labelled = pa.table({"image": images, "label": [0, 1, 10**12, 1]})
    pq.write_table(labelled, tmp_path / "labels" / "train.parquet")
    config = json.loads((model / "config.json").read_text())
    (tmp_path / "deep").mkdir()
    for file in model.iterdir():
        (tmp_path / "deep" / file.name).write_bytes(file.read_bytes())
    deep = {**config, "depths": [10**6] * len(config["depths"])}
    (tmp_path / "deep" / "config.json").write_text(json.dumps(deep))
    out = ["--output", str(tmp_path / "out"), "--strict"]
    commands = [
        ["embed", str(tmp_path / "png"), "--model", str(model), *out],
        ["embed", str(tmp_path / "tif"), "--model", str(model), *out],
        ["embed", str(tmp_path / "good"), "--model", str(tmp_path / "deep"), *out],
        [
            *("evaluate", f"model={model}", f"data.name={tmp_path / 'labels'}"),
            *("protocols=[knn5]", f"output_dir={tmp_path / 'out2'}", "data.test_split=train"),
        ],
    ]
    arguments = [json.dumps(commands), str(tmp_path / "good"), str(model), str(tmp_path / "warm")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("answer ")]
    assert len(lines) == len(commands), done.stderr[-3000:]
    for argv, line in zip(commands, lines, strict=True):
        code, seconds, grown, told = json.loads(line.removeprefix("answer "))
        assert grown < 200 * 2**20, (argv, seconds, grown, told)
        if argv[0] == "evaluate":  # a number far off is the name of a class, and not their count
            assert code == 0, told
            continue
        assert code == 2 and "error: " in told, (argv, code, told)
        assert seconds < 1, (argv, seconds, told)
