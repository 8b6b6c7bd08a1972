"""What a few labels in a pile are worth: logistic regression, and with the unlabelled tiles' help.

python training/benchmarks/few_labels.py --data path/to/ucmerced128 --model MODEL --output FOLDER

The pile is the training and the test images together, as a person has them: one table, without its
labels. Of the training images n a class are labelled, in five seeded draws; counted are the answers
of `rs-models classify`, without and with `--propagate`, to the test images. Both are written as
results, `labelled-n5` and `propagated-n5`; with `--stages`, for tables of `embed --stages`, as
`labelled-n5@stages` and so on.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rs_models.data import build_cache, load
from rs_models.data.cache import default_cache_dir
from rs_models.data.sampling import few_shot_draw
from rs_models.evaluation.features import extract
from rs_models.evaluation.loading import load_encoder
from rs_models.evaluation.protocols import content_hash
from rs_models.evaluation.readout import SCALES, at_all_stages
from rs_models.evaluation.results import Result, write
from rs_models.labelling import Index, Labels, classify
from rs_models.labelling.classify import calibration_error
from rs_models.labelling.propagate import ALPHA, NEIGHBOURS, SMOOTHING
from rs_models.labelling.vectors import whitening_of_blocks

# As a table of float16 holds them.
_STORED = np.float16


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and writes the results; the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", required=True, action="append", help="labelled set; repeat")
    parser.add_argument("--model", required=True, help="folder or name of a backbone")
    parser.add_argument("--output", required=True, help="folder of the results")
    parser.add_argument("--labels", type=int, nargs="+", default=[1, 2, 5, 10, 20])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--stages", action="store_true", help="as embed --stages")
    options = parser.parse_args(argv)
    command = f"python training/benchmarks/few_labels.py {shlex.join(argv)}"
    for data in options.data:
        how = (options.model, options.labels, options.seeds, options.stages, command)
        for result in measure(data, *how):
            file = write(result, options.output)
            print(f"{file}: {result.mean:.1f} ± {result.std:.1f}", flush=True)
    return 0


def measure(
    data: str, model: str, counts: Sequence[int], seeds: int, stages: bool, command: str
) -> list[Result]:
    """Two results for each number of labels a class that the data has."""
    images = {split: build_cache(load(data, split), progress=False) for split in ("train", "test")}
    encoder = load_encoder(model).fit(images["train"])
    if stages:
        encoder = at_all_stages(encoder, SCALES)
    folder = default_cache_dir() / "features"
    vectors = {
        split: extract(encoder, cache, progress=False, cache_dir=folder)
        for split, cache in images.items()
    }
    y = {split: np.asarray(cache.labels) for split, cache in images.items()}
    pile = np.concatenate([vectors["train"], vectors["test"]])
    if stages:
        pile = whitening_of_blocks([pile], len(pile))(pile)
    index = Index.of(pile.astype(_STORED))
    results = []
    for count in (n for n in counts if n <= np.bincount(y["train"]).min()):
        for spread in (False, True):
            told = [answers(index, y, count, seed, spread) for seed in range(seeds)]
            correct, errors, estimates = zip(*told, strict=True)
            result = Result.measured(
                correct,
                model=encoder.name or model,
                model_revision=encoder.revision or "unknown",
                data=Path(data).name,
                data_revision=content_hash(images["test"]),
                protocol=f"{'propagated' if spread else 'labelled'}-n{count}{'@stages' * stages}",
                settings={
                    "pretrained_on": encoder.pretrained_on,
                    "image_size": encoder.train_size,
                    "pile": "training and test images, without labels",
                    "pile_images": len(index),
                    "test_images": len(y["test"]),
                    "images_per_class": count,
                    "seeds": list(range(seeds)),
                    **({"readout": "means of all stages", "scales": SCALES} if stages else {}),
                    **(
                        {"alpha": ALPHA, "neighbours": NEIGHBOURS, "smoothing": SMOOTHING}
                        if spread
                        else {}
                    ),
                },
                scores={"ece": list(errors), "estimated_accuracy": list(estimates)},
                command=command,
            )
            results.append(result)
    return results


def answers(
    index: Index, y: dict[str, np.ndarray], count: int, seed: int, spread: bool
) -> tuple[np.ndarray, float, float]:
    """Which test images of a draw are right, their calibration error and the estimated accuracy."""
    rows = few_shot_draw(y["train"], count, seed)
    labels = Labels.of({int(row): f"{y['train'][row]:04d}" for row in rows})
    said = classify(index, labels, spread=spread)
    of_test = said.probabilities[len(y["train"]) :]
    error = calibration_error(of_test, y["test"]) / 100
    return of_test.argmax(1) == y["test"], round(error, 4), round(said.accuracy / 100, 4)


if __name__ == "__main__":
    sys.exit(main())
