# %% [markdown]
# # 7. A hundred labels
#
# You get: from a pile of tiles without labels to a classifier, the curve of its accuracy against
# the number of labels, suggested beside random ones, a gallery of the answers, the tiles that are
# in doubt, and a folder that `pipeline` loads. A minute and a half on two CPU cores.
#
# The same on the command line: [Label a pile of tiles](../../docs/howto/label.md).

# %%
import os
import tempfile

import matplotlib.pyplot as plt
import numpy as np

from rs_models.data import load
from rs_models.data.cache import build_cache
from rs_models.evaluation.features import extract
from rs_models.evaluation.loading import load_encoder
from rs_models.labelling import Index, Labels, classify, suggest
from rs_models.plots import sheet

MODEL = os.environ.get("RS_MODELS_NOTEBOOK_MODEL", "rs/rsisc-resnet-mini-aid")
DATA = os.environ.get("RS_MODELS_NOTEBOOK_DATA", "rs/ucmerced")
SMALL = bool(os.environ.get("RS_MODELS_NOTEBOOK_SMALL"))
BUDGETS = (12, 24) if SMALL else (21, 42, 70, 100)
SEEDS = 2 if SMALL else 3
WORK = tempfile.mkdtemp()

# %% [markdown]
# ## The pile
#
# UC Merced's tiles (public domain). Their true classes stay aside: they play the person who is
# asked, and they count at the end.

# %%
rows = load(DATA, "train")
if SMALL:
    rows = rows.select(range(0, len(rows), 3))
pile = build_cache(rows, progress=False)
encoder = load_encoder(MODEL)
index = Index.of(extract(encoder, pile, progress=False))
index.encoder = encoder  # the model that the classifier will be saved with
truth = np.array(pile.classes)[pile.labels.numpy()]
pictures = pile.images.permute(0, 2, 3, 1).numpy()  # (N, H, W, 3)
print(f"{len(index)} tiles of {len(pile.classes)} classes, {index.vectors.shape[1]} numbers each")

# %% [markdown]
# ## Which to label first?
#
# The most typical tile of each of twelve clusters.

# %%
first = suggest(index, 12)
plt.figure(figsize=(9, 3.2))
plt.imshow(sheet(pictures[first], columns=6))
plt.axis("off")
plt.show()

# %% [markdown]
# ## How far do labels go?
#
# A person labels what is suggested, round after round; beside it the same number at random.
# Accuracy is that of all tiles without a label.


# %%
def told(chosen):
    """The labels that a person would give."""
    return Labels.of({int(row): str(truth[row]) for row in chosen})


def accuracy(answers, chosen):
    """Share of right answers in percent, on the tiles that nobody labelled."""
    rest = np.setdiff1d(np.arange(len(index)), chosen)
    best = np.array(answers.names)[answers.probabilities.argmax(1)]
    return 100 * float((best[rest] == truth[rest]).mean())


curves = {"suggested": [], "random": []}
for seed in range(SEEDS):
    chosen, line = np.zeros(0, np.int64), []
    for budget in BUDGETS:
        labels = told(chosen) if len(chosen) else None
        new = suggest(index, budget - len(chosen), labels=labels, seed=seed)
        chosen = np.concatenate([chosen, new])
        line.append(accuracy(classify(index, told(chosen)), chosen))
    curves["suggested"].append(line)
    order = np.random.default_rng(seed).permutation(len(index))
    line = [accuracy(classify(index, told(order[:n])), order[:n]) for n in BUDGETS]
    curves["random"].append(line)

figure, axes = plt.subplots(figsize=(6, 3.6))
for name, lines in curves.items():
    mean, std = np.mean(lines, 0), np.std(lines, 0)
    axes.plot(BUDGETS, mean, marker="o", label=name)
    axes.fill_between(BUDGETS, mean - std, mean + std, alpha=0.2)
    print(
        f"{name}: " + ", ".join(f"{m:.1f} % with {n}" for m, n in zip(mean, BUDGETS, strict=True))
    )
axes.set(xlabel="labels", ylabel="accuracy in %", xticks=BUDGETS)
axes.legend(frameon=False)
axes.grid(alpha=0.3)

# %% [markdown]
# ## The answers
#
# With `spread` the tiles without a label help: answers are smoothed over neighbours. The estimate
# comes from the labelled tiles alone; the truth is what nobody would have.

# %%
labels = told(chosen)
answers = classify(index, labels, confidence=0.5)
helped = classify(index, labels, spread=True)
low, high = helped.interval
print(f"truly {accuracy(answers, chosen):.1f} %, with neighbours {accuracy(helped, chosen):.1f} %")
print(f"estimated {helped.accuracy:.1f} % [{low:.1f}, {high:.1f}] from {len(labels)} labels")

# %% [markdown]
# A line for each of the classes that are answered most often: the tiles that it is surest of.

# %%
counts = np.bincount(helped.probabilities.argmax(1), minlength=len(helped.names))
shown = np.argsort(-counts)[:6]
surest = [np.argsort(-helped.probabilities[:, number])[:8] for number in shown]
figure, axes = plt.subplots(figsize=(9, 7))
page = sheet(pictures[np.concatenate(surest)], columns=8)
axes.imshow(page)
step = page.shape[0] / len(shown)
axes.set_yticks([step * (line + 0.5) for line in range(len(shown))])
axes.set_yticklabels([helped.names[number] for number in shown])
axes.set_xticks([])

# %% [markdown]
# And the ones in doubt, which to look at next:

# %%
doubtful = np.argsort(helped.probabilities.max(1))[:12]
plt.figure(figsize=(9, 3.2))
plt.imshow(sheet(pictures[doubtful], columns=6))
plt.axis("off")
plt.show()

# %% [markdown]
# ## A classifier for everybody
#
# Backbone and head in one ordinary transformers folder, which `rs-models predict` and `push` take.

# %%
from PIL import Image
from transformers import pipeline

from rs_models.labelling.saving import save

folder = save(answers, index, f"{WORK}/classifier")
say = pipeline("image-classification", model=str(folder))
others = np.setdiff1d(np.arange(len(index)), chosen)
for row in np.random.default_rng(0).permutation(others)[:6]:
    best = say(Image.fromarray(pictures[row]))[0]
    print(f"{truth[row]:>20}: {best['label']} ({best['score']:.0%})")
