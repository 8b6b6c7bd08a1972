"""`rs-models collect`: pretraining tiles from large scenes, guided by a land-cover map."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence

from ..errors import UserError

USAGE = """usage: rs-models collect [--config FILE] [--name value | name=value ...]

Collect tiles for pretraining from a folder of GeoTIFFs or a STAC catalogue of cloud-optimised
GeoTIFFs, whose windows are read by range requests. A land-cover map (raster or GeoJSON) guides
where to look: as many tiles of each class, or at random. Clouds, nodata and look-alikes are left
out. The output is a data set: rs-models pretrain data.name=OUTPUT.

examples:
  rs-models collect scenes=path/to/scenes guide=worldcover.tif n=2000 output=outputs/tiles
  rs-models collect scenes=https://HOST/catalog.json guide=landuse.geojson n=100000 rate=20 \\
    "classes={forest: forest, farmland: field}" output=outputs/tiles

Stopped, the same command goes on. Exit codes: 0 done, 1 network or server, 2 bad input."""


def parser() -> argparse.ArgumentParser:
    """Settings of the command as options."""
    from ..data.collect import CollectConfig
    from ..settings import settings_parser

    return settings_parser("rs-models collect", CollectConfig)


def main(argv: Sequence[str]) -> int:
    """Collects from the command line; the exit code.

    Raises:
        UserError: Bad input, or nothing that could be kept.
        ServiceError: Network and server troubles.
    """
    from ..data.collect import CollectConfig, collect
    from ..data.collect.run import report
    from ..settings import parse

    config = parse(CollectConfig, argv, usage=USAGE)
    done = collect(config, progress=sys.stderr.isatty())
    print(json.dumps(dataclasses.asdict(done), indent=2) if config.json else report(done, config.n))
    if not done.tiles:
        raise UserError(
            f"No tile of {config.scenes} could be kept: see above what was left out, and change "
            "the scenes or the settings."
        )
    return 0
