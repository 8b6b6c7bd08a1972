"""Whole scenes: the right class at the right place, whatever the scene is like."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

from rs_models import backbones
from rs_models.errors import UserError
from rs_models.export import export
from rs_models.predict import Predictor, from_model, load_predictor, predict
from rs_models.predict.maps import largest
from rs_models.preprocessing import Preprocessing
from rs_models.tasks.segmenters import DeepLabV3PlusConfig, DeepLabV3PlusForSemanticSegmentation
from tests.predict.helpers import RGB, UTM, PixelModel, expected, pixels, predictor, read, write
from tests.support.models import nano, provenance

BESIDE = ["map.qml", "map.tif", "map.tif.aux.xml", "scene.tif"]
SMALL = {"tile": 32, "overlap": 8, "batch_size": 3, "progress": False}


@pytest.mark.parametrize("size", [(101, 75), (64, 64), (20, 9), (33, 200), (1, 1)])
def test_every_pixel_gets_the_class_that_the_whole_image_would_give_it(tmp_path, size):
    image = pixels(*size)
    scene = write(tmp_path / "scene.tif", image)
    done = predict(scene, predictor(), tmp_path / "map.tif", **SMALL)
    assert done.kind == "classes" and done.computed == done.tiles
    np.testing.assert_array_equal(read(tmp_path / "map.tif")[0], expected(image))
    assert sorted(p.name for p in tmp_path.iterdir()) == BESIDE


def test_the_map_lies_where_the_scene_lies_and_is_cloud_optimised(tmp_path):
    transform = from_origin(412_345.5, 5_123_456.5, 0.3, 0.3)
    scene = write(tmp_path / "scene.tif", pixels(1100, 1300), transform=transform)
    predict(scene, predictor(), tmp_path / "map.tif", tile=512, progress=False)
    with rasterio.open(scene) as before, rasterio.open(tmp_path / "map.tif") as after:
        assert after.crs == before.crs and after.transform == before.transform
        assert after.bounds == before.bounds and after.shape == before.shape
        layout = after.tags(ns="IMAGE_STRUCTURE")
        assert layout["LAYOUT"] == "COG" and layout["COMPRESSION"] == "DEFLATE"
        assert after.profile["tiled"] and after.overviews(1) and after.nodata == 255
        assert after.tags()["class_1"] == "red"
        colours = after.colormap(1)
        assert len({colours[i] for i in range(3)}) == 3 and colours[255][3] == 0
        half = after.read(1, out_shape=(after.height // 2, after.width // 2))
        assert set(np.unique(half)) <= {0, 1, 2}  # overviews hold classes, not their means


def test_probabilities_and_embeddings_are_float_bands(tmp_path):
    image = pixels(90, 70)
    scene = write(tmp_path / "scene.tif", image)
    predict(scene, predictor(), tmp_path / "p.tif", kind="probabilities", **SMALL)
    found = read(tmp_path / "p.tif")
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-5)
    np.testing.assert_array_equal(found.argmax(0), expected(image))
    with rasterio.open(tmp_path / "p.tif") as file:
        assert file.descriptions == ("dark", "red", "blue")

    folder = tmp_path / "model"
    backbone = nano("resnet_nano")
    export(backbone, folder, provenance=provenance(backbone), timm=False)
    write(tmp_path / "tile.tif", pixels(96, 128))
    predict(tmp_path / "tile.tif", str(folder), tmp_path / "e.tif", tile=128, progress=False)
    model = load_predictor(str(folder))
    with rasterio.open(tmp_path / "tile.tif") as file:
        stored = torch.from_numpy(np.pad(file.read(), ((0, 0), (0, 32), (0, 0)), "symmetric"))[None]
    valid = torch.ones(1, 128, 128, dtype=torch.bool)
    with torch.no_grad():
        dense = backbones.dense(model.model, model.prepared(stored, valid))
    found = read(tmp_path / "e.tif")
    np.testing.assert_allclose(found, dense[0, :, :3].numpy(), atol=1e-4)
    with rasterio.open(tmp_path / "e.tif") as file:
        assert file.transform.a == 0.5 * 32 and file.bounds.left == 500_000


def deeplab():
    torch.manual_seed(0)
    config = backbones.backbone_config("resnet_nano", image_size=64)
    config.rs_models = RGB.record()
    return DeepLabV3PlusForSemanticSegmentation(
        DeepLabV3PlusConfig(
            backbone_config=config, num_labels=2, decoder_channels=8, low_level_channels=4
        )
    ).eval()


def test_no_seam_is_left_where_tiles_meet(tmp_path):
    """Steps at the tiles' borders are those of the image; without blending they are not."""
    scene = write(tmp_path / "scene.tif", pixels(160, 288))
    model = from_model(deeplab(), "segmentation", RGB)

    def step(name, **settings):
        predict(scene, model, tmp_path / name, kind="probabilities", progress=False, **settings)
        change = np.abs(np.diff(read(tmp_path / name)[0], axis=1)).mean(0)
        borders = np.arange(settings["tile"], 288, settings["tile"] - settings["overlap"]) - 1
        return change[borders].mean() / np.median(change)

    hard = step("hard.tif", tile=64, overlap=0)
    soft = step("soft.tif", tile=64, overlap=32)
    assert hard > 2 * soft and soft < 1.5


def test_what_holds_no_data_stays_so_and_does_not_reach_the_model(tmp_path):
    image = pixels(80, 80)
    image[:, 20:50, 30:] = 0
    scene = write(tmp_path / "scene.tif", image, nodata=0)
    predict(scene, predictor(), tmp_path / "map.tif", **SMALL)
    found, gone = read(tmp_path / "map.tif")[0], (image == 0).all(0)
    assert (found[gone] == 255).all()
    np.testing.assert_array_equal(found[~gone], expected(image)[~gone])

    alpha = np.concatenate([image, np.where(gone, 0, 255)[None].astype(np.uint8)])
    scene = write(tmp_path / "alpha.tif", alpha, photometric="RGB", alpha="yes")
    predict(scene, predictor(), tmp_path / "alpha_map.tif", **SMALL)
    np.testing.assert_array_equal(read(tmp_path / "alpha_map.tif")[0], found)


@pytest.mark.parametrize("kind", ["classes", "probabilities"])
def test_a_scene_without_any_data_gives_a_map_without_any(tmp_path, kind):
    scene = write(tmp_path / "scene.tif", np.zeros((3, 70, 50), np.uint8), nodata=0)
    model = PixelModel()
    done = predict(scene, predictor(model), tmp_path / "map.tif", kind=kind, **SMALL)
    found = read(tmp_path / "map.tif")
    assert done.computed == 0 and model.calls == 0
    assert (found == 255).all() if kind == "classes" else np.isnan(found).all()
    assert found.shape == ((1 if kind == "classes" else 3), 70, 50)


def test_bands_are_found_by_name_in_any_order(tmp_path):
    image = pixels(40, 40, channels=5)
    names = ["B08", "Blue", "Green", "Red", "SWIR16"]
    scene = write(tmp_path / "scene.tif", image, names=names)
    predict(scene, predictor(), tmp_path / "map.tif", **SMALL)
    np.testing.assert_array_equal(read(tmp_path / "map.tif")[0], expected(image[[3, 2, 1]]))

    unnamed = write(tmp_path / "unnamed.tif", image)
    with pytest.raises(UserError, match="5 bands that it does not name"):
        predict(unnamed, predictor(), tmp_path / "other.tif", **SMALL)
    bands = "nir,blue,green,red,swir1"
    predict(unnamed, predictor(), tmp_path / "other.tif", bands=bands, **SMALL)
    np.testing.assert_array_equal(read(tmp_path / "other.tif"), read(tmp_path / "map.tif"))
    with pytest.raises(UserError, match="bands names 2"):
        predict(unnamed, predictor(), tmp_path / "x.tif", bands="red,green", **SMALL)
    four = Preprocessing(("red", "green", "blue", "vv"), (0.0, 255.0), (0.0,) * 4, (1.0,) * 4, 64)
    with pytest.raises(UserError, match="vv asked for"):
        predict(scene, predictor(preprocessing=four), tmp_path / "x.tif", **SMALL)
    assert not (tmp_path / "x.tif").exists()


def test_a_vrt_is_a_scene_too(tmp_path):
    left, right = pixels(60, 40), pixels(60, 40, seed=1)
    write(tmp_path / "left.tif", left, transform=from_origin(0, 100, 1, 1))
    write(tmp_path / "right.tif", right, transform=from_origin(40, 100, 1, 1))
    sources = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}">'
        + "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}.tif</SourceFilename>'
            f"<SourceBand>{band}</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="40" ySize="60"/>'
            f'<DstRect xOff="{x}" yOff="0" xSize="40" ySize="60"/></SimpleSource>'
            for name, x in (("left", 0), ("right", 40))
        )
        + "</VRTRasterBand>"
        for band in (1, 2, 3)
    )
    (tmp_path / "scene.vrt").write_text(
        f'<VRTDataset rasterXSize="80" rasterYSize="60"><SRS>{UTM}</SRS>'
        f"<GeoTransform>0,1,0,100,0,-1</GeoTransform>{sources}</VRTDataset>"
    )
    predict(tmp_path / "scene.vrt", predictor(), tmp_path / "map.tif", **SMALL)
    whole = np.concatenate([left, right], axis=2)
    np.testing.assert_array_equal(read(tmp_path / "map.tif")[0], expected(whole))


def _offsets(path):
    with rasterio.open(path) as file:
        return file.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1), file.get_tag_item(
            "BLOCK_SIZE_1_1", "TIFF", bidx=1
        )


def broken(path, image):
    """A tiled file whose block in column 1, row 1 (of 32 x 32 pixels) holds rubbish."""
    tiled = {"tiled": True, "blockxsize": 32, "blockysize": 32, "interleave": "pixel"}
    write(path, image, compress="deflate", **tiled)
    offset, size = map(int, _offsets(path))
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = b"\xff" * size
    path.write_bytes(bytes(content))
    return path


def test_a_corrupt_block_is_named_and_may_become_nodata(tmp_path):
    image = pixels(120, 130)
    scene = broken(tmp_path / "scene.tif", image)
    with pytest.raises(UserError, match=r"cannot be read in rows 32 to 64, columns 0 to 96"):
        predict(scene, predictor(), tmp_path / "map.tif", **{**SMALL, "overlap": 0})
    assert not (tmp_path / "map.tif").exists()
    done = predict(scene, predictor(), tmp_path / "map.tif", skip_corrupt=True, **SMALL)
    assert done.corrupt_blocks == 1
    found, wanted = read(tmp_path / "map.tif")[0], expected(image)
    wanted[32:64, 32:64] = 255
    np.testing.assert_array_equal(found, wanted)


def test_a_stopped_scene_goes_on_and_ends_the_same(tmp_path):
    image = pixels(200, 100)
    scene = write(tmp_path / "scene.tif", image)
    settings = {**SMALL, "kind": "probabilities"}
    whole = predict(scene, predictor(), tmp_path / "whole.tif", **settings)
    model = PixelModel()
    model.fail_after = 9
    with pytest.raises(KeyboardInterrupt):
        predict(scene, predictor(model), tmp_path / "map.tif", **settings)
    assert not (tmp_path / "map.tif").exists()
    model.fail_after = None
    done = predict(scene, predictor(model), tmp_path / "map.tif", **settings)
    assert 0 < done.computed < whole.tiles
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_what_is_unfinished_of_another_job_is_not_used(tmp_path, capsys):
    scene = write(tmp_path / "scene.tif", pixels(200, 100))
    model = PixelModel()
    model.fail_after = 9
    with pytest.raises(KeyboardInterrupt):
        predict(scene, predictor(model), tmp_path / "map.tif", **SMALL)
    model.fail_after = None
    other = {**SMALL, "overlap": 0, "progress": True}
    done = predict(scene, predictor(model), tmp_path / "map.tif", **other)
    assert done.computed == done.tiles
    assert "starting anew" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "boxes"}, "gives classes or probabilities, not boxes"),
        ({"kind": "probabilities", "polygons": True}, "Polygons are made of classes"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"tile": 32, "overlap": 20}, "overlap is 20"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, settings, message):
    scene = write(tmp_path / "scene.tif", pixels(40, 40))
    with pytest.raises(UserError, match=message):
        predict(scene, predictor(), tmp_path / "map.tif", progress=False, **settings)


def test_scenes_that_are_none_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.tif is not there"):
        predict(tmp_path / "nowhere.tif", predictor(), tmp_path / "map.tif")
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(UserError, match=r"text\.tif cannot be read"):
        predict(tmp_path / "text.tif", predictor(), tmp_path / "map.tif")
    scene = write(tmp_path / "deep.tif", pixels(40, 40).astype(np.uint16) * 40)
    with pytest.raises(UserError, match="takes uint8 images"):
        predict(scene, predictor(), tmp_path / "map.tif")
    with pytest.raises(UserError, match=r"should end in \.tif"):
        predict(scene, predictor(), tmp_path / "map.png")


class Squares(PixelModel):
    """A detector of bright squares of 8 pixels, as transformers' detectors answer."""

    from types import SimpleNamespace

    config = SimpleNamespace(model_type="rs_test", id2label={0: "house"})

    def forward(self, x):
        from transformers.utils import ModelOutput

        side = x.shape[-1]
        logits, boxes = torch.zeros(len(x), 20, 2), torch.zeros(len(x), 20, 4)
        logits[..., 1] = 9.0
        for i, image in enumerate(x):
            bright = image.mean(0) > 0.7
            corners = bright.clone()  # pixels without a bright one above or to the left
            corners[1:] &= ~bright[:-1]
            corners[:, 1:] &= ~bright[:, :-1]
            for number, (y, c) in enumerate(corners.nonzero()[:20].tolist()):
                h = min(8, side - y)
                w = min(8, side - c)
                logits[i, number] = torch.tensor([4.0, 0.0])
                boxes[i, number] = torch.tensor([c + w / 2, y + h / 2, w, h]) / side
        return ModelOutput(logits=logits, pred_boxes=boxes)


def test_boxes_come_once_each_in_map_coordinates(tmp_path):
    image = np.full((3, 150, 140), 20, np.uint8)
    places = [(10, 10), (28, 60), (60, 26), (100, 100), (50, 50), (140, 130)]
    for y, x in places:
        image[:, y : y + 8, x : x + 8] = 250
    scene = write(tmp_path / "scene.tif", image)
    model = predictor(Squares(), task="detection")
    done = predict(scene, model, tmp_path / "boxes.geojson", tile=64, overlap=24, progress=False)
    assert done.boxes == len(places)
    features = json.loads((tmp_path / "boxes.geojson").read_text())["features"]
    found = {tuple(f["properties"]["pixels"]) for f in features}
    assert found == {(x, y, x + 8, y + 8) for y, x in places}
    assert all(
        f["properties"]["area_m2"] == round(16 / 0.9996**2, 2) for f in features
    )  # UTM's metres
    by_pixels = {tuple(f["properties"]["pixels"][:2]): f for f in features}
    ring = by_pixels[(10.0, 10.0)]["geometry"]["coordinates"][0]
    from rasterio.warp import transform

    lon, lat = transform(UTM, "EPSG:4326", [500_005], [5_000_000 - 5])
    assert min(abs(x - lon[0]) + abs(y - lat[0]) for x, y in ring) < 1e-7


def test_a_classifiers_backbone_gives_embeddings_when_asked(tmp_path):
    from rs_models.tasks.classification import over

    backbone = nano("resnet_nano")
    backbone.config.rs_models = provenance(backbone)
    over(backbone, {0: "a", 1: "b"}).save_pretrained(tmp_path / "m")
    scene = write(tmp_path / "scene.tif", pixels(64, 64))
    done = predict(scene, str(tmp_path / "m"), tmp_path / "c.tif", progress=False)
    assert done.kind == "classes"
    done = predict(
        scene, str(tmp_path / "m"), tmp_path / "e.tif", kind="embeddings", progress=False
    )
    assert done.kind == "embeddings" and len(read(tmp_path / "e.tif")) == 128


def test_one_vector_a_tile_fills_all_of_its_cells(tmp_path):
    """As of an encoder that has no dense features (timm, for one)."""
    mean = PixelModel()
    whole = Predictor(
        task="embedding",
        model=mean,
        preprocessing=RGB,
        names=[],
        name="mean colour",
        revision="r",
        stride=None,
        forward=lambda x: x.mean((2, 3)),
    )
    image = np.full((3, 64, 64), 51, np.uint8)
    scene = write(tmp_path / "scene.tif", image)
    predict(scene, whole, tmp_path / "e.tif", tile=32, overlap=0, progress=False)
    np.testing.assert_allclose(read(tmp_path / "e.tif"), 0.2, rtol=1e-5)


@pytest.mark.parametrize("count, kind", [(2, np.uint8), (7, np.uint8), (300, np.uint16)])
def test_the_class_of_a_pixel_is_the_first_of_the_largest(count, kind):
    scores = np.random.default_rng(0).integers(0, 3 * count, (count, 30, 40)).astype(np.float32)
    found = np.zeros((30, 40), kind)
    assert (scores == scores.max(0)).sum() > 30 * 40  # some are equal
    largest(scores, found)
    np.testing.assert_array_equal(found, scores.argmax(0))


def test_a_classifier_gives_a_class_a_cell(tmp_path):
    class Brightness(PixelModel):
        def forward(self, x):
            mean = x.mean((1, 2, 3))
            return torch.stack((1 - mean, mean, torch.zeros_like(mean)), 1) * 9

    image = np.full((3, 128, 256), 10, np.uint8)
    image[:, :, 128:] = 240
    scene = write(tmp_path / "scene.tif", image)
    model = predictor(Brightness(), task="classification", stride=None)
    predict(scene, model, tmp_path / "map.tif", progress=False)
    found = read(tmp_path / "map.tif")[0]
    assert found.shape == (128 // 16, 256 // 16)  # a quarter of the training size a cell
    assert (found[:, :6] == 0).all() and (found[:, -6:] == 1).all()
