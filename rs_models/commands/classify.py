"""`rs-models classify`: classes of a whole table from the labels of some of its tiles."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..settings import Options, Share

if TYPE_CHECKING:
    from ..labelling import Answers, Index

_EPILOG = """examples:
  rs-models classify embeddings --labels labels.csv --output answers.csv
  rs-models classify embeddings --labels labels.csv --output answers.gpkg --confidence 0.7
  rs-models classify embeddings --labels labels.csv --propagate --output a.csv --save classifier

The folder of --save is an ordinary transformers classifier: pipeline("image-classification",
model="classifier") takes it, and so do rs-models predict and push.
Exit codes: 0 done, 1 network or server, 2 bad input."""


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    options = Options(
        prog="rs-models classify",
        description="Say what every tile of a table is, and how sure that is.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("table", help="output of rs-models embed")
    options.add_argument(
        "--labels", required=True, action="append", help="CSV file with tile and label; repeat"
    )
    options.add_argument(
        "--output", help="file of the answers: .csv, .gpkg, .fgb, .parquet, .geojson, .shp"
    )
    options.add_argument(
        "--confidence",
        type=Share,
        default=0.5,
        help="probability below which a tile is 'unsure' (default %(default)s)",
    )
    options.add_argument(
        "--propagate", action="store_true", help="let unlabelled tiles help, by their neighbours"
    )
    options.add_argument("--save", help="folder of a transformers classifier to write")
    return options


def main(argv: Sequence[str]) -> int:
    """Classifies from the command line; the exit code.

    Raises:
        UserError: No such table, labels that are not of it or of one class, or an output that
            would overwrite the labels.
    """
    options = parser().parse_args(argv)
    from ..errors import UserError
    from ..labelling import Index, Labels, classify
    from ..labelling.answers import check_output

    theirs = [Path(file).resolve() for file in options.labels]
    if options.output and Path(options.output).resolve() in theirs:
        raise UserError(f"{options.output} holds the labels: write the answers elsewhere.")
    index = Index.open(options.table)
    # Before anything is computed.
    if options.output:
        check_output(options.output, index)
    if options.save:
        from ..labelling.saving import check_savable, save

        check_savable(index, options.save)
    labels = Labels.read(options.labels[0], index, *options.labels[1:])
    if labels.blank:
        print(f"{labels.blank} lines have no class yet and are left out", file=sys.stderr)
    answers = classify(index, labels, confidence=options.confidence, spread=options.propagate)
    print(_report(answers))
    if options.output:
        _write(answers, index, options.output)
        print(f"{options.output}: {len(index)} tiles")
    if options.save:
        print(f"{save(answers, index, options.save)}: a classifier for transformers")
    print(_next(options, index))
    return 0


def _next(options: argparse.Namespace, index: Index) -> str:
    """The command, or program, that one goes on with."""
    savable = index.readout == "pooled"
    save = ", or the same command with --save classifier" if savable else ""
    if options.save:
        return (
            f"Next: rs-models predict SCENE --model {options.save} --output map.tif, or rs-models "
            f"push {options.save} --repo-id YOU/NAME"
        )
    if options.output:
        return (
            f"Next: rs-models suggest {options.table} --labels {options.labels[0]} --output "
            f"more.csv to label more{save}"
        )
    more = " --save classifier" if savable else ""
    from ..labelling.answers import writes_vectors

    suffix = "gpkg" if writes_vectors(index) else "csv"
    return f"Next: the same command with --output answers.{suffix}{more}"


def _report(answers: Answers) -> str:
    low, high = answers.interval
    names = [*answers.names, "unsure"]
    width = max(map(len, names))
    lines = [f"{name:<{width}}  {count:>8}" for name, count in answers.counts().items()]
    lines.append(
        f"Estimated accuracy {answers.accuracy:.1f} % [{low:.1f}, {high:.1f}], calibration error "
        f"{answers.calibration_error:.1f} %, on {answers.labelled} labelled tiles left out in turn."
    )
    if answers.labelled < 3 * len(answers.names):
        lines.append("So few labels say little about themselves: label more before you trust it.")
    return "\n".join(lines)


def _write(answers: Answers, index: Index, output: str) -> None:
    from ..labelling.answers import write_rows
    from ..labelling.labels import ANSWER

    names = [answers.names[number] if number >= 0 else "unsure" for number in answers.classes]
    columns = {
        "label": names,
        ANSWER: [answers.names[number] for number in answers.probabilities.argmax(1)],
        "confidence": answers.probabilities.max(1).round(4),
    }
    columns |= {
        f"p_{name}": answers.probabilities[:, number].round(4)
        for number, name in enumerate(answers.names)
    }
    write_rows(output, index, range(len(index)), columns)
