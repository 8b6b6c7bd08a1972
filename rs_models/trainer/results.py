"""The small table after a run, and how to load what it made."""

from __future__ import annotations

from pathlib import Path

from accelerate import PartialState

from ..data.names import data_name
from ..errors import ServiceError, UserError
from ..settings import duration
from .config import RunConfig
from .knn import evaluation_cache


def show_results(config: RunConfig, export: Path, *, command: str, seconds: float) -> None:
    """Prints k-NN of the exported backbone beside two baselines, and how to go on from it.

    The results are written to `<output_dir>/results`. A run whose data has no labels or no such
    splits prints the loading lines alone.

    Args:
        config: The run's settings.
        export: The exported backbone.
        command: The command line, recorded in the results.
        seconds: What the run took.
    """
    if not PartialState().is_main_process:
        return
    try:
        rows = knn_rows(config, export, command=command)
    except UserError as error:  # the run is done: what is left is to say how to load it
        print(f"\nno evaluation: {error}")
        rows = []
    if rows:
        width = max(len(name) for name, _ in rows)
        test = f"{config.evaluation.name or config.data.name}, {config.evaluation.test_split}"
        print(f"\nk-NN (k = 20) accuracy on {test}:")
        for name, accuracy in rows:
            print(f"  {name:<{width}}  {accuracy:5.1f} %")
    print(
        f"\nDone in {duration(seconds)}. Load it anywhere, without rs_models:\n"
        "  from transformers import AutoImageProcessor, AutoModel\n"
        f'  model = AutoModel.from_pretrained("{export}")\n'
        f'  processor = AutoImageProcessor.from_pretrained("{export}")'
    )
    data = config.evaluation.name or config.data.name
    further = f"evaluate --model {export} --data.name {data}" if rows else f"info {export}"
    print(f"Next: rs-models {further}")


def knn_rows(config: RunConfig, export: Path, *, command: str) -> list[tuple[str, float]]:
    """(name, accuracy in percent) of the trained backbone, random weights, image statistics."""
    from ..evaluation.loading import load_encoder
    from ..evaluation.protocols import run
    from ..evaluation.results import write

    final = config.expand()[-1]
    train = evaluation_cache(final, final.evaluation.train_split)
    test = evaluation_cache(final, final.evaluation.test_split)
    if train.labels is None or test.labels is None:
        return []
    names = {
        "this run": str(export),
        "random initialisation": f"baseline:random-{final.backbone}",
        "image statistics": "baseline:image-statistics",
    }
    if final.evaluation.beside is not None:
        names["beside"] = final.evaluation.beside
    rows = []
    for label, name in names.items():
        try:
            encoder = load_encoder(name, size=final.image_size)
        except (UserError, ServiceError) as error:
            if name != final.evaluation.beside:
                raise
            print(f"not compared: {error}")  # a wheel has no models, and there may be no network
            continue
        if label == "beside":
            origin = getattr(encoder, "pretrained_on", None)
            label = f"{name}, trained on {origin}" if origin else name
        [result] = run(
            encoder,
            train,
            test,
            protocols=("knn20",),
            data=data_name(final.evaluation.name or final.data.name),
            command=command,
        )
        if name != final.evaluation.beside:  # that one's results are its own
            write(result, Path(config.output_dir) / "results")
        rows.append((label, result.mean))
    return rows
