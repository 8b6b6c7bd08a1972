# %% [markdown]
# # 3. Segmentation with 1% of the labels
#
# You get: a DeepLabV3+ on a self-supervised backbone from a hundredth of the masks, its masks
# beside the truth, and the IoU of each class, next to the same network from random weights. Five
# minutes on two CPU cores.

# %%
import os
import tempfile

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

from rs_models.data import load
from rs_models.data.synthetic import LAND_COVER
from rs_models.demos.pictures import LAND_COVER_COLOURS
from rs_models.predict import load_predictor
from rs_models.tasks.finetuning import FinetuneConfig, FinetuneData, finetune

MODEL = os.environ.get("RS_MODELS_NOTEBOOK_MODEL", "rs/rsisc-resnet-mini-aid")
SMALL = bool(os.environ.get("RS_MODELS_NOTEBOOK_SMALL"))
WORK = tempfile.mkdtemp()
DATA = f"synthetic:num={200 if SMALL else 1200},size=64"

# %% [markdown]
# ## One mask in a hundred
#
# The labels are land cover: tree, grass, crop, soil, sand, water, building, pavement, vehicle.


# %%
def tuned(start, name):
    """Fine-tunes a backbone and gives the result."""
    return finetune(
        FinetuneConfig(
            task="segmentation",
            model=start,
            data=FinetuneData(name=DATA, classes=list(LAND_COVER)),
            labels="4" if SMALL else "1%",
            epochs=1000,
            max_steps=4 if SMALL else 150,
            evaluations=1 if SMALL else 3,
            batch_size=4 if SMALL else 8,
            seeds=[0],
            output_dir=f"{WORK}/{name}",
        )
    )


results = {
    "pretrained": tuned(MODEL, "pretrained"),
    "random weights": tuned("baseline:random-resnet_mini", "random"),
}
for name, result in results.items():
    print(f"{name}: mIoU {result.mean:.1f} %")

# %% [markdown]
# ## Masks beside the truth

# %%
rows = load(DATA, "test").select(range(24 if SMALL else 96))
pixels = np.stack([np.asarray(image) for image in rows["image"]])
truth = np.stack([np.asarray(mask) for mask in rows["mask"]])
predictor = load_predictor(f"{WORK}/pretrained/model").to("cpu")


def masks(images):
    """Class numbers (N, H, W) of images (N, H, W, 3)."""
    import torch

    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    return np.concatenate([predictor(predictor.prepared(p)).argmax(1) for p in x.split(16)])


found = masks(pixels)
colours = ListedColormap([np.array(LAND_COVER_COLOURS[name]) / 255 for name in LAND_COVER])
figure, grid = plt.subplots(3, 6, figsize=(11, 5.8))
for column in range(6):
    shown = (pixels[column], truth[column], found[column])
    for axes, picture in zip(grid[:, column], shown, strict=True):
        axes.imshow(picture, cmap=colours, vmin=-0.5, vmax=len(LAND_COVER) - 0.5)
        axes.set_xticks([])
        axes.set_yticks([])
for axes, title in zip(grid[:, 0], ("image", "truth", "predicted"), strict=True):
    axes.set_ylabel(title)
handles = [plt.Rectangle((0, 0), 1, 1, color=colours(n)) for n in range(len(LAND_COVER))]
figure.legend(handles, LAND_COVER, ncols=9, loc="lower center", frameon=False, fontsize=9)
figure.tight_layout(rect=(0, 0.06, 1, 1))

# %% [markdown]
# ## Which classes does it find?

# %%
iou = []
for number in range(len(LAND_COVER)):
    both = ((found == number) & (truth == number)).sum()
    either = ((found == number) | (truth == number)).sum()
    iou.append(100 * both / max(1, either))
figure, axes = plt.subplots(figsize=(7, 3))
axes.bar(LAND_COVER, iou, color=[colours(n) for n in range(len(LAND_COVER))], edgecolor="grey")
axes.set_ylabel("IoU in %")
axes.tick_params(axis="x", rotation=30)
figure.tight_layout()
