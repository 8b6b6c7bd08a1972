# %% [markdown]
# # 5. Pretrain on your own images
#
# You get: a backbone trained on a folder of images without any label, the views that it learned
# from, its loss, and what it is worth beside random weights. Four minutes on two CPU cores.

# %%
import json
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from rs_models.data import load
from rs_models.data.cache import build_cache
from rs_models.demos import signals_shown
from rs_models.evaluation.loading import load_encoder
from rs_models.evaluation.protocols import run
from rs_models.settings import build
from rs_models.trainer import RunConfig, pretrain

SMALL = bool(os.environ.get("RS_MODELS_NOTEBOOK_SMALL"))
WORK = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A folder of images
#
# Here UC Merced's aerial images (public domain, in the clone) stand in for yours: set `FOLDER` to
# your own (class folders or flat, any size; GeoTIFF tiles work too). Training looks at no label.

# %%
FOLDER = WORK / "images"
FOLDER.mkdir()
rows = load("rs/ucmerced", "train").shuffle(seed=0)
for number, row in enumerate(rows.select(range(96)) if SMALL else rows):
    row["image"].save(FOLDER / f"{number:04d}.png")

# %% [markdown]
# ## What the model will see
#
# Two views of one image are a pair; the training pulls their features together and pushes those of
# other images away. These are made by the training code itself.

# %%
example = np.asarray(rows[0]["image"].resize((384, 384)))
shown = signals_shown.tov(example).pictures[:3]
figure, grid = plt.subplots(1, 3, figsize=(9, 3.3))
for axes, (picture, caption) in zip(grid, shown, strict=True):
    axes.imshow(picture)
    axes.set_title(caption, fontsize=10)
    axes.axis("off")
figure.tight_layout()

# %% [markdown]
# ## Pretrain
#
# The same as `accelerate launch training/pretrain.py --config ... data.name=FOLDER`. Another method
# is another `name`: rsisc, tov, false, sticl, glcnet, last.

# %%
LABELLED = "rs/ucmerced"
export = pretrain(
    build(
        RunConfig,
        {
            "output_dir": str(WORK / "run"),
            "method": {
                "name": "tov",
                "temperature": 0.2,
                "view_settings": {
                    "scale": [0.2, 1.0],
                    "grey_probability": 0.1,
                    "blur_probability": 0.0,
                },
            },
            "backbone": "resnet_mini",
            "image_size": 64,
            "data": {"name": str(FOLDER)},
            "epochs": 1 if SMALL else 60,
            "batch_size": 32 if SMALL else 128,
            "optimizer": {"name": "sgd", "lr": 0.12, "warmup_epochs": 0.5 if SMALL else 3},
            "evaluation": {"name": LABELLED, "every": 1 if SMALL else 10},
        },
    )
)
print("export:", export.relative_to(WORK))

# %% [markdown]
# ## Loss, and whether the features stay alive
#
# `rank` is the effective rank of the features: near 1 they have collapsed, and the run would stop.

# %%
lines = [json.loads(line) for line in next(WORK.rglob("metrics.jsonl")).open()]
lines = [line for line in lines if "loss" in line]
figure, grid = plt.subplots(1, 2, figsize=(9, 3))
steps = [line["step"] for line in lines]
grid[0].plot(steps, [line["loss"] for line in lines])
grid[0].set(xlabel="step", ylabel="loss")
rank = next(key for key in lines[-1] if "rank" in key)
grid[1].plot(steps, [line[rank] for line in lines])
grid[1].set(xlabel="step", ylabel="effective rank")
figure.tight_layout()

# %% [markdown]
# ## What is it worth?
#
# Nearest neighbours on labelled images that were in no training: during the run, and beside the
# same network with random weights.

# %%
curve = [json.loads(line) for line in next(WORK.rglob("knn.jsonl")).open()]
train, test = (build_cache(load(LABELLED, split), progress=False) for split in ("train", "test"))
trained, random = (
    run(load_encoder(name), train, test, protocols=["knn20"], progress=False)[0].mean
    for name in (str(export), "baseline:random-resnet_mini")
)
figure, axes = plt.subplots(figsize=(6, 3.2))
axes.plot([line["step"] for line in curve], [line["knn20"] for line in curve], marker="o")
axes.axhline(random, color="grey", linestyle="--", label="random weights, test images")
axes.set(xlabel="step", ylabel="k-NN accuracy in %")
axes.legend(frameon=False)
print(f"test images: {trained:.1f} % trained, {random:.1f} % random weights")
