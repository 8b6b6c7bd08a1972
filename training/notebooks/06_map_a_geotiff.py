# %% [markdown]
# # 6. Map a GeoTIFF
#
# You get: a segmentation network applied to a georeferenced scene, a map with legend, the area of
# each class in hectares, and polygons as GeoJSON for your GIS. Four minutes on two CPU cores.

# %%
import json
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import rasterio
from matplotlib.colors import ListedColormap
from rasterio.transform import from_origin

from rs_models.data.synthetic import CLASSES, LAND_COVER, draw_scene
from rs_models.demos.pictures import LAND_COVER_COLOURS
from rs_models.predict import predict
from rs_models.tasks.finetuning import FinetuneConfig, FinetuneData, finetune

MODEL = os.environ.get("RS_MODELS_NOTEBOOK_MODEL", "rs/rsisc-resnet-mini-aid")
SMALL = bool(os.environ.get("RS_MODELS_NOTEBOOK_SMALL"))
WORK = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A scene
#
# Sixteen synthetic scenes side by side stand in for yours, in UTM zone 32 at one metre a pixel. Any
# GeoTIFF or VRT will do, of any size: it is read window by window.

# %%
SIDE, ACROSS = 128, 2 if SMALL else 4
parts = [draw_scene(n % len(CLASSES), (3, n), SIDE) for n in range(ACROSS**2)]
lines = [parts[n : n + ACROSS] for n in range(0, len(parts), ACROSS)]
scene = np.vstack([np.hstack([image[..., :3] for image, _, _ in line]) for line in lines])
truth = np.vstack([np.hstack([cover for _, cover, _ in line]) for line in lines])
profile = {"driver": "GTiff", "height": len(scene), "width": len(scene), "count": 3}
place = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_400_000, 1.0, 1.0)}
with rasterio.open(WORK / "scene.tif", "w", dtype="uint8", **profile, **place) as out:
    out.write(np.moveaxis(scene, 2, 0))
    for band, name in enumerate(("red", "green", "blue"), 1):
        out.set_band_description(band, name)

# %% [markdown]
# ## A network
#
# Fine-tuned here on other scenes; any folder that `training/finetune.py` wrote, or a segmentation
# model of transformers by its Hub id, does as well.

# %%
result = finetune(
    FinetuneConfig(
        task="segmentation",
        model=MODEL,
        data=FinetuneData(
            name=f"synthetic:num={32 if SMALL else 240},size={SIDE}", classes=list(LAND_COVER)
        ),
        labels="8" if SMALL else "all",
        epochs=1000,
        max_steps=2 if SMALL else 150,
        evaluations=1,
        batch_size=4,
        seeds=[0],
        output_dir=str(WORK / "network"),
    )
)
print(f"mIoU {result.mean:.1f} %")

# %% [markdown]
# ## The map
#
# The same as `rs-models predict scene.tif --model ... --output map.tif --polygons`.

# %%
made = predict(
    WORK / "scene.tif",
    str(WORK / "network" / "model"),
    WORK / "map.tif",
    tile=128,
    polygons=True,
    min_area=20,
    progress=False,
)
with rasterio.open(WORK / "map.tif") as raster:
    classes = raster.read(1)
    print(raster.crs, raster.shape, f"{made.tiles} tiles, {made.polygons} polygons")

colours = ListedColormap([np.array(LAND_COVER_COLOURS[name]) / 255 for name in LAND_COVER])
figure, grid = plt.subplots(1, 3, figsize=(11, 4.3))
for axes, picture, title in zip(
    grid, (scene, classes, truth), ("scene", "map", "truth"), strict=True
):
    axes.imshow(picture, cmap=colours, vmin=-0.5, vmax=len(LAND_COVER) - 0.5)
    axes.set_title(title)
    axes.axis("off")
handles = [plt.Rectangle((0, 0), 1, 1, color=colours(n)) for n in range(len(LAND_COVER))]
figure.legend(handles, LAND_COVER, ncols=9, loc="lower center", frameon=False, fontsize=9)
figure.tight_layout(rect=(0, 0.06, 1, 1))

# %% [markdown]
# ## Hectares
#
# From the polygons, whose areas are measured in an equal-area projection.

# %%
shapes = json.loads((WORK / "map.geojson").read_text())["features"]
areas = dict.fromkeys(LAND_COVER, 0.0)
for shape in shapes:
    areas[shape["properties"]["class"]] += shape["properties"]["area_m2"] / 10_000
for name, hectares in sorted(areas.items(), key=lambda item: -item[1]):
    print(f"{name:10s} {hectares:7.2f} ha")
