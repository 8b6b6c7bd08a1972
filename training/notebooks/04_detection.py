# %% [markdown]
# # 4. Detection
#
# You get: a Faster R-CNN on a self-supervised backbone that finds planes and ships, its boxes
# beside the truth, and AP50. Five minutes on two CPU cores.

# %%
import os
import tempfile

import matplotlib.pyplot as plt
from transformers import pipeline

import rs_models  # registers our detector with transformers
from rs_models.data import load
from rs_models.data.synthetic import OBJECTS
from rs_models.tasks.finetuning import FinetuneConfig, FinetuneData, finetune

MODEL = os.environ.get("RS_MODELS_NOTEBOOK_MODEL", "rs/rsisc-resnet-mini-aid")
SMALL = bool(os.environ.get("RS_MODELS_NOTEBOOK_SMALL"))
WORK = tempfile.mkdtemp()
NUM = 48 if SMALL else 480
print("rs_models", rs_models.__version__)

# %% [markdown]
# ## Data
#
# Airports and harbours of the synthetic scenes, written as a folder of Parquet files: your own data
# has the same columns, `image` and `objects` with `bbox` (x, y, width, height in pixels) and
# `category`.

# %%
for split in ("train", "test"):
    rows = load(f"synthetic:num={NUM},size=128", split)
    names = [rows.features["label"].names[label] for label in rows["label"]]
    rows = rows.select([n for n, name in enumerate(names) if name in ("airport", "harbor")])
    rows.select_columns(["image", "objects"]).to_parquet(f"{WORK}/{split}.parquet")
print(len(rows), "images to test on")

# %% [markdown]
# ## Learn from boxes

# %%
result = finetune(
    FinetuneConfig(
        task="detection",
        model=MODEL,
        data=FinetuneData(name=WORK, classes=list(OBJECTS)),
        labels="4" if SMALL else "all",
        # A small pyramid and head, as for CPU cores; anchors from 16 pixels on.
        head_settings={"pyramid_channels": 64, "head_dim": 128, "anchor_scales": [4.0, 8.0]},
        epochs=1000,
        max_steps=2 if SMALL else 240,
        evaluations=1,
        batch_size=2 if SMALL else 4,
        seeds=[0],
        output_dir=f"{WORK}/network",
    )
)
print(f"AP50 {result.mean:.1f} %")

# %% [markdown]
# ## Boxes beside the truth
#
# The folder is loaded by transformers' pipeline. White: the truth; colours: what was found, with
# its score.

# %%
detect = pipeline("object-detection", model=f"{WORK}/network/model")
rows = [row for row in load(WORK, "test") if row["objects"]["bbox"]][:6]
figure, grid = plt.subplots(2, 3, figsize=(10, 7))
hues = dict(zip(OBJECTS, ("tab:orange", "tab:red", "tab:cyan", "tab:pink"), strict=True))
for axes, row in zip(grid.flat, rows, strict=False):
    axes.imshow(row["image"])
    axes.axis("off")
    for x, y, width, height in row["objects"]["bbox"]:
        axes.add_patch(plt.Rectangle((x, y), width, height, fill=False, color="white", lw=2.5))
    for found in detect(row["image"], threshold=0.5):
        box, label = found["box"], found["label"]
        corner = (box["xmin"], box["ymin"])
        size = (box["xmax"] - box["xmin"], box["ymax"] - box["ymin"])
        axes.add_patch(plt.Rectangle(corner, *size, fill=False, color=hues[label], lw=1.5))
        axes.text(*corner, f"{label} {found['score']:.2f}", color=hues[label], fontsize=8)
figure.tight_layout()
