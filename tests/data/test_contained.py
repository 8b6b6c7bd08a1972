"""Tables that name files: those of the data set's folder are read, no other ever is."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Image

from rs_models.data import load
from rs_models.errors import UserError
from tests.data import make


def table(root, paths, *, saved=False):
    """A data set whose first image is held and whose others are files, as `datasets` has them."""
    images = [{"bytes": make.png(make.pixels(9)), "path": "/nowhere/held.png"}]
    features = Features({"image": Image()})
    if saved:  # with as many rows as will be
        rows = {"image": images * (1 + len(paths))}
        Dataset.from_dict(rows, features=features).save_to_disk(str(root))
    images += [{"bytes": None, "path": str(path)} for path in paths]
    stored = pa.array(images, features.arrow_schema.field("image").type)
    rows = pa.table({"image": stored}, schema=features.arrow_schema)
    if saved:
        (file,) = root.glob("*.arrow")
        with pa.ipc.new_stream(str(file), rows.schema) as writer:
            writer.write_table(rows)
    else:
        root.mkdir(exist_ok=True)
        pq.write_table(rows, root / "train.parquet")
    return root


@pytest.fixture(params=["parquet", "saved"])
def kind(request):
    return {"saved": request.param == "saved"}


def test_images_in_the_folder_are_read(tmp_path, kind):
    root = tmp_path / "set"
    inside = make.save(root / "images" / "a.png", seed=1)
    table(root, [inside], **kind)
    assert [row["image"].size for row in load(root)] == [(24, 20), (24, 20)]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("how", ["absolute", "parent", "link", "address"])
def test_a_file_of_elsewhere_is_refused_before_it_is_read(tmp_path, kind, how, streaming):
    secret = make.save(tmp_path / "private.png", seed=2)
    root = tmp_path / "set"
    root.mkdir()
    if how == "link":
        (root / "link.png").symlink_to(secret)
    named = {
        "absolute": secret,
        "parent": root / ".." / "private.png",
        "link": root / "link.png",
        "address": "http://127.0.0.1:9/private.png",
    }[how]
    table(root, [named], **kind)
    with pytest.raises(UserError, match=r"row 1 names the file .*, which is no part of the data"):
        list(load(root, streaming=streaming))
