"""A collection from settings to shards: plan the positions, read the tiles, judge and keep them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from ...errors import UserError
from ...files import claim, write_json
from ...settings import Count, Length, Positive, Range, Seed, Share, check_ranges, progress_bar
from ...settings.ranges import LARGEST_SIDE
from .guide import open_guide
from .plan import Candidate, draw
from .scenes import Scene, find_scenes
from .stac import Search
from .tiles import LOOK_SIDE, Reader, Tile, judge, look_alike

Degrees = Annotated[float, Range(least=-180, most=180)]
_STATE, _JOB, _LOOKS = "state.json", "job.json", ".looks"


@dataclass
class CollectConfig:
    """What to collect.

    Attributes:
        scenes: Folder of GeoTIFFs, or a STAC catalogue, item or item collection, as a file or an
            http(s) address; its scenes are read by range requests.
        guide: Land-cover map: a raster of class numbers, or polygons (GeoJSON; with the extra `geo`
            GeoPackage, FlatGeobuf, Shapefile and GeoParquet too). Null draws blindly.
        classes: Number or name of a class in the guide -> name; others are not drawn. Null takes
            all that there are.
        field: Property of the polygons that names their class.
        output: Folder to write.
        n: Tiles to collect.
        tile: Side in pixels.
        sampling: `balanced` draws as many of each guidance class, `random` as they come.
        seed: Seed of the positions.
        asset: Asset of STAC items: the one to read, or several with commas where each is a band of
            its own (`red,green,blue`); null is `visual`, `image`, `data`, or the only GeoTIFF.
        bbox: What a STAC API is asked for: west, south, east, north in degrees.
        dates: What a STAC API is asked for: a date, or two with a slash (`2024-05-01/2024-09-30`).
        collections: What a STAC API is asked for: names of its collections.
        any_resolution: Take scenes whose pixels differ in size.
        bands: Numbers (from 1) of the bands to keep; null is the first three.
        max_scene_cloud: Leave out STAC items with more cloud than this, in percent.
        max_cloud: Largest share of a tile that is white and bright.
        max_nodata: Largest share of a tile without data.
        min_purity: Smallest share of a tile that its guidance class covers.
        duplicates: Keep tiles that look alike.
        workers: Readers at a time.
        rate: Tiles a second at most, of all readers together; null is no limit.
        retries: How often a failed read is repeated, each time after twice the wait.
        shard: Tiles of a Parquet file; a stop loses at most so many.
        json: Print the report as JSON.
    """

    scenes: str = ""
    guide: str | None = None
    classes: dict[str, Any] | None = None
    field: str = "class"
    output: str = "outputs/collection"
    n: Count = 1000
    tile: Annotated[int, Range(least=LOOK_SIDE, most=LARGEST_SIDE)] = 256
    sampling: Literal["balanced", "random"] = "balanced"
    seed: Seed = 0
    asset: str | None = None
    bbox: Annotated[list[Degrees], Length(least=4, most=4)] | None = None
    dates: str | None = None
    collections: list[str] | None = None
    any_resolution: bool = False
    bands: Annotated[list[Count], Length()] | None = None
    max_scene_cloud: Annotated[float, Range(least=0, most=100)] = 20.0
    max_cloud: Share = 0.2
    max_nodata: Share = 0.01
    min_purity: Share = 0.0
    duplicates: bool = False
    workers: Annotated[int, Range(least=1, most=1024)] = 4
    rate: Positive | None = None
    retries: Annotated[int, Range(least=0, most=100)] = 4
    shard: Count = 500
    json: bool = False


@dataclass
class Collected:
    """What a collection made.

    Attributes:
        output: Folder that was written.
        tiles: Tiles kept, in all.
        classes: Guidance class -> tiles.
        rejected: Reason -> positions.
        seconds: Time of reading and judging, over all calls.
        read: Positions that were looked at.
        bytes: Size of the Parquet files.
    """

    output: str
    tiles: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    read: int = 0
    bytes: int = 0

    def million(self) -> str:
        """What a million tiles would take at the measured cost, in one sentence."""
        if not self.tiles or not self.seconds:
            return "nothing was kept, so there is no cost to plan with"
        hours = 1e6 * self.seconds / self.tiles / 3600
        return (
            f"a million tiles like these: {hours:.1f} hours at {self.tiles / self.seconds:.1f} "
            f"kept tiles a second, {1e6 * self.bytes / self.tiles / 2**30:.0f} GiB, "
            f"{self.read / self.tiles:.2f} positions read for each"
        )


def collect(config: CollectConfig, *, progress: bool = True) -> Collected:
    """Draws positions, reads, judges and keeps tiles until there are `n`.

    Each row has `image`, `latitude` and `longitude` of the centre (WGS 84), `date` (ISO 8601, empty
    where the scene has none), `label` (guidance class), `purity`, `scene`, `row` and `column`. What
    is finished is kept: the same call goes on after a stop and gives the same rows.

    Args:
        config: Settings.
        progress: Show a progress bar.

    Returns:
        What was made.

    Raises:
        UserError: No scenes, a guide that does not cover them, settings that contradict each other,
            or an output of another job.
    """
    _check(config)
    output = Path(config.output)
    scenes = find_scenes(
        config.scenes,
        asset=config.asset,
        max_cloud=config.max_scene_cloud,
        retries=config.retries,
        rate=config.rate,
        search=Search(config.bbox, config.dates, config.collections),
    )
    guide = open_guide(config.guide, config.classes, config.field) if config.guide else None
    order, names = draw(
        scenes,
        guide,
        tile=config.tile,
        sampling=config.sampling,
        seed=config.seed,
        min_purity=config.min_purity,
        bands=config.bands,
        any_resolution=config.any_resolution,
    )
    with claim(output, _job(config, scenes, names), record=_JOB):
        return _fill(output, config, scenes, order, names, progress)


def _fill(
    output: Path,
    config: CollectConfig,
    scenes: list[Scene],
    order: list[Candidate],
    names: list[str],
    progress: bool,
) -> Collected:
    """Reads, judges and keeps tiles from where the last call stopped."""
    state = _state(output)
    done = Collected(str(output), **state["done"])
    seen, at = _looks(output, state["shards"]), state["next"]
    quota = _quotas(config, names)

    def full(label: int) -> bool:
        return done.classes.get(names[label], 0) >= quota[label]

    if done.tiles >= config.n:  # a random draw has no full class to stop at
        return done
    kept: list[Tile] = []
    started, before = time.perf_counter(), done.seconds
    with progress_bar(config.n, "collecting", "tile", shown=progress, initial=done.tiles) as bar:
        for number, candidate, tile, failure in _tiles(config, scenes, order, at, full):
            at = number + 1
            done.read += 1
            reason = failure or judge(tile, config.max_cloud, config.max_nodata)
            if reason is None and not config.duplicates:
                look = look_alike(tile.pixels)
                reason = "duplicate" if look in seen else None
                seen.add(look)
            if reason is not None:
                done.rejected[reason] = done.rejected.get(reason, 0) + 1
                continue
            kept.append(tile)
            name = names[candidate.label]
            done.classes[name] = done.classes.get(name, 0) + 1
            done.tiles += 1
            bar.update()
            if len(kept) == config.shard or done.tiles == config.n:
                done.seconds = before + time.perf_counter() - started
                _flush(output, kept, names, done, at, scenes)
                kept = []
            if done.tiles == config.n:
                break
    done.seconds = before + time.perf_counter() - started
    if kept or done.tiles < config.n:
        _flush(output, kept, names, done, at, scenes)
    return done


def _check(config: CollectConfig) -> None:
    check_ranges(config)
    if not config.scenes:
        raise UserError(
            "The setting scenes is not set: name a folder of GeoTIFFs or a STAC catalogue."
        )
    if config.guide is None and config.min_purity:
        raise UserError("The setting min_purity needs a guide, which says what a tile shows.")


def _quotas(config: CollectConfig, names: list[str]) -> dict[int, int]:
    """Class -> tiles to keep; equal ones, the first classes taking what is over."""
    if config.sampling == "random":
        return dict.fromkeys(range(len(names)), config.n)
    each, over = divmod(config.n, len(names))
    return {label: each + (label < over) for label in range(len(names))}


def _tiles(
    config: CollectConfig,
    scenes: list[Scene],
    order: list[Candidate],
    start: int,
    full: Callable[[int], bool],
) -> Iterator[tuple[int, Candidate, Any, str | None]]:
    """Positions in order with their tile, or why it could not be read; full classes are passed by.

    A few are read ahead. Which are taken depends on what was kept, never on the readers' speed.
    """
    reader = Reader(config.tile, config.bands, rate=config.rate, retries=config.retries)
    with ThreadPoolExecutor(config.workers) as pool:
        ahead: list[tuple[int, Any]] = []
        at = start
        while at < len(order) or ahead:
            while at < len(order) and len(ahead) < 2 * config.workers:
                if not full(order[at].label):
                    scene = scenes[order[at].scene]
                    ahead.append((at, pool.submit(reader.read, scene, order[at])))
                at += 1
            if not ahead:
                continue
            number, future = ahead.pop(0)
            tile, failure = future.result()
            if not full(order[number].label):
                yield number, order[number], tile, failure


def _job(config: CollectConfig, scenes: list[Scene], names: list[str]) -> dict[str, Any]:
    """What makes it this collection and no other."""
    free = {"output", "workers", "rate", "retries", "json"}
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key not in free}
    text = json.dumps([[scene.href for scene in scenes], names], sort_keys=True)
    return {"format": 3, "scenes found": hashlib.sha256(text.encode()).hexdigest(), **settings}


def _state(output: Path) -> dict[str, Any]:
    """The state to go on with.

    Raises:
        UserError: A damaged one.
    """
    state = output / _STATE
    if state.is_file():
        try:
            content = json.loads(state.read_text(encoding="utf-8"))
            return {key: content[key] for key in ("next", "shards", "done")}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{state} is damaged: remove {output} and collect again.") from error
    empty = dataclasses.asdict(Collected(""))
    del empty["output"]
    return {"next": 0, "shards": 0, "done": empty}


def _looks(output: Path, shards: int) -> set[str]:
    """How the tiles of the finished shards look, see `look_alike`; kept a file a shard."""
    seen: set[str] = set()
    for number in range(shards):
        path = output / _LOOKS / f"{number:05d}.json"
        seen |= set(json.loads(path.read_text(encoding="utf-8")))
    return seen


def _flush(
    output: Path,
    kept: list[Tile],
    names: list[str],
    done: Collected,
    at: int,
    scenes: list[Scene],
) -> None:
    """Writes a shard, then the state that counts it: a stop between the two writes it again."""
    state = output / _STATE
    shards = json.loads(state.read_text(encoding="utf-8"))["shards"] if state.is_file() else 0
    if kept:
        from .shards import write_shard

        path = output / "data" / f"train-{shards:05d}.parquet"
        write_shard(path, kept, names, scenes)
        (output / _LOOKS).mkdir(exist_ok=True)
        write_json(
            output / _LOOKS / f"{shards:05d}.json", [look_alike(tile.pixels) for tile in kept]
        )
        shards += 1
    done.bytes = sum(path.stat().st_size for path in (output / "data").glob("*.parquet"))
    told = dataclasses.asdict(done)
    del told["output"]
    write_json(state, {"next": at, "shards": shards, "done": told})


def report(done: Collected, wanted: int) -> str:
    """What was made, for people."""
    lines = [f"{done.output}: {done.tiles} tiles of {done.read} positions in {done.seconds:.1f} s"]
    if done.tiles < wanted:
        lines.append(f"  {wanted - done.tiles} fewer than asked for: there are no more positions")
    for title, counts in (("kept", done.classes), ("left out", done.rejected)):
        shown = ", ".join(f"{name} {count}" for name, count in Counter(counts).most_common())
        lines.append(f"  {title}: {shown or 'none'}")
    lines.append(f"  {done.million()}")
    lines.append(f"Next: rs-models pretrain --config tov_resnet50 --data.name {done.output}")
    return "\n".join(lines)
