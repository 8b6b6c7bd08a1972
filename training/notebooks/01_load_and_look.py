# %% [markdown]
# # 1. Load a model and look at its features
#
# You get: a self-supervised backbone in two lines, its nearest neighbours among real aerial images
# (UC Merced, which lies in the clone), and a picture of its dense features. One minute on two CPU
# cores. `pip install "rs-models[notebooks]"` brings what is needed.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModel

from rs_models import backbones
from rs_models.data import load
from rs_models.evaluation.loading import load_encoder

MODEL = os.environ.get("RS_MODELS_NOTEBOOK_MODEL", "rs/rsisc-resnet-mini-aid")
SMALL = bool(os.environ.get("RS_MODELS_NOTEBOOK_SMALL"))
NUM = 63 if SMALL else 630

# %% [markdown]
# ## Two lines of transformers
#
# The weights are a plain transformers repository: `rs_models` is not needed to use them. (A folder
# works as well as a Hub id; `resolve` finds ours in a local copy of the Hub too.)

# %%
from rs_models.zoo import resolve

model = AutoModel.from_pretrained(resolve(MODEL), use_safetensors=True).eval()
processor = AutoImageProcessor.from_pretrained(resolve(MODEL))
rows = load("rs/ucmerced", "train").shuffle(seed=0).select(range(NUM))  # 21 kinds of land use
with torch.inference_mode():
    output = model(**processor(images=rows[0]["image"], return_tensors="pt"))
known = model.config.rs_models
print(type(model).__name__, tuple(output.last_hidden_state.shape))
print("trained by", known["method"], "on", known["data"], "with bands", known["bands"])

# %% [markdown]
# ## Which images look alike to it?
#
# `load_encoder` gives any backbone, with the preprocessing that it was trained with, as a function
# from stored pixels to features. Each row below starts with a query; its five nearest images by
# cosine follow.

# %%
encoder = load_encoder(MODEL)
names = rows.features["label"].names
pixels = torch.from_numpy(np.stack([np.asarray(image) for image in rows["image"]]))
with torch.inference_mode():
    features = torch.cat([encoder(part) for part in pixels.permute(0, 3, 1, 2).split(64)])
features = torch.nn.functional.normalize(features, dim=1)
similarity = features @ features.T
labels = np.asarray(rows["label"])

queries = [int(np.flatnonzero(labels == label)[0]) for label in sorted(set(labels))[::4]]
figure, grid = plt.subplots(len(queries), 6, figsize=(10, 1.9 * len(queries)))
for line, query in zip(grid, queries, strict=True):
    for axes, row in zip(line, similarity[query].argsort(descending=True)[:6], strict=True):
        axes.imshow(pixels[row])
        axes.set_title(names[labels[row]], fontsize=9)
        axes.axis("off")
figure.tight_layout()

# %% [markdown]
# How often is the nearest image of the same class? Chance is one over the number of classes.

# %%
nearest = similarity.fill_diagonal_(-1).argmax(1).numpy()
agreed = (labels[nearest] == labels).mean()
print(f"nearest neighbour of the same class: {agreed:.0%}; chance {1 / len(names):.0%}")

# %% [markdown]
# ## Dense features as colours
#
# The three strongest principal components of the feature map as red, green and blue: what gets the
# same colour is the same thing to the model.

# %%
from rs_models.demos.pictures import pca_picture

backbone = backbones.load(MODEL)
mean, std = (torch.tensor(known[key])[:, None, None] for key in ("image_mean", "image_std"))
shown = [labels.tolist().index(label) for label in sorted(set(labels))[1::5]][:4]
figure, grid = plt.subplots(2, len(shown), figsize=(10, 5.2), squeeze=False)
for column, row in enumerate(shown):
    # Four times as large: the map gets four times as many cells along a side.
    image = rows[row]["image"].resize((512, 512))
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        dense = backbones.dense(backbone, (x - mean) / std)[0]
    grid[0, column].imshow(image)
    grid[1, column].imshow(pca_picture(dense.numpy(), 512))
for axes in grid.flat:
    axes.axis("off")
figure.tight_layout()
