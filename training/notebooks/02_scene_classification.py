# %% [markdown]
# # 2. Scene classification with 20 labels per class
#
# You get: accuracy with 1 to 20 labels per class on frozen features beside random weights, a
# fine-tuned classifier, its confusion matrix, and a folder that `pipeline` loads. Three minutes on
# two CPU cores.

# %%
import os
import tempfile

import matplotlib.pyplot as plt
import numpy as np

from rs_models.data import load
from rs_models.data.cache import build_cache
from rs_models.evaluation.features import extract
from rs_models.evaluation.fewshot import few_shot
from rs_models.evaluation.loading import load_encoder
from rs_models.tasks.finetuning import FinetuneConfig, FinetuneData, finetune

MODEL = os.environ.get("RS_MODELS_NOTEBOOK_MODEL", "rs/rsisc-resnet-mini-aid")
SMALL = bool(os.environ.get("RS_MODELS_NOTEBOOK_SMALL"))
WORK = tempfile.mkdtemp()
TRAIN = "rs/ucmerced"  # aerial images of 21 kinds of land use, which lie in the clone

# %% [markdown]
# ## Frozen features and a few labels
#
# Every encoder gets the same five draws of labels; the band is their standard deviation.

# %%
train, test = (build_cache(load(TRAIN, split), progress=False) for split in ("train", "test"))
names, y, test_y = train.classes, train.labels.numpy(), test.labels.numpy()
shots = (1, 5) if SMALL else (1, 2, 5, 10, 20)
encoders = {"pretrained": MODEL, "random weights": "baseline:random-resnet_mini"}
figure, axes = plt.subplots(figsize=(6, 3.8))
for label, name in encoders.items():
    encoder = load_encoder(name).fit(train)  # a baseline takes the images' statistics
    x, test_x = (extract(encoder, images, progress=False) for images in (train, test))
    draws = np.array(
        [100 * few_shot(x, y, test_x, test_y, n=n).correct.mean(1) for n in shots]
    )  # (n, draws)
    mean, std = draws.mean(1), draws.std(1, ddof=1)
    axes.plot(shots, mean, marker="o", label=label)
    axes.fill_between(shots, mean - std, mean + std, alpha=0.2)
    print(f"{label}: " + ", ".join(f"{m:.1f} with {n}" for n, m in zip(shots, mean, strict=True)))
axes.set(xlabel="labels per class", ylabel="accuracy in %", xscale="log", xticks=shots)
axes.set_xticklabels(shots)
axes.minorticks_off()
axes.legend(frameon=False)
axes.grid(alpha=0.3)

# %% [markdown]
# ## Fine-tuning
#
# The same as `accelerate launch training/finetune.py model=... labels=20/class`. A part of the
# labels is held out for early stopping; the test images are looked at once.

# %%
config = FinetuneConfig(
    task="classification",
    model=MODEL,
    data=FinetuneData(name=TRAIN),
    labels="4/class" if SMALL else "20/class",
    epochs=2 if SMALL else 30,
    evaluations=2 if SMALL else 6,
    seeds=[0],
    output_dir=f"{WORK}/finetune",
)
result = finetune(config)
print(f"accuracy {result.mean:.1f} %")

# %% [markdown]
# ## What is mistaken for what?
#
# The folder is an ordinary transformers classifier.

# %%
from transformers import pipeline

classify = pipeline("image-classification", model=f"{WORK}/finetune/model")
rows = load(TRAIN, "test").shuffle(seed=0).select(range(60 if SMALL else 315))
images, truth = list(rows["image"]), np.asarray(rows["label"])
found = [names.index(answer[0]["label"]) for answer in classify(images, batch_size=32)]
matrix = np.zeros((len(names), len(names)), int)
np.add.at(matrix, (truth, found), 1)
share = matrix / matrix.sum(1, keepdims=True).clip(1)
figure, axes = plt.subplots(figsize=(7, 6))
axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
for row, column in np.argwhere(share >= 0.05):
    ink = "white" if share[row, column] > 0.5 else "black"
    text = f"{100 * share[row, column]:.0f}"
    axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8)
axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
axes.set_yticks(range(len(names)), names)
axes.set(xlabel="predicted", ylabel="true", title="Shares of each true class in %")
figure.tight_layout()
