"""Seconds a search of a large table takes, and whether it finds what exact float32 finds.

python training/benchmarks/search.py --json FILE

A table as `rs-models embed --dtype float16` writes it, of random vectors, is opened and searched as
`rs-models search` does it. Each query is timed on the clock and in processor time, for a busy
machine stretches the first; the load stands beside both. The exact answer is the order of float32
cosines, ties by row.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rs_models.labelling import Index

_SHARD = 100_000


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and writes the JSON file; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512, help="numbers of a vector")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("-k", type=int, default=50, help="tiles a query asks for")
    parser.add_argument("--table", type=Path, help="table to keep, or one that was kept")
    options = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.table or Path(scratch) / "table"
        if not folder.exists():
            write_table(folder, options.rows, options.width)
        result = measure(folder, options.queries, options.k)
    text = json.dumps(result, indent=1)
    print(text)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(text + "\n", encoding="utf-8")
    return 0


def write_table(folder: Path, rows: int, width: int) -> None:
    """Writes random vectors as `embed` does."""
    rng = np.random.default_rng(0)
    (folder / "data").mkdir(parents=True)
    shards = {}
    for number, start in enumerate(range(0, rows, _SHARD)):
        count = min(_SHARD, rows - start)
        flat = rng.normal(size=count * width).astype(np.float16)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat), width)
        names = [f"{row:07d}.tif" for row in range(start, start + count)]
        file = folder / "data" / f"train-{number:05d}.parquet"
        content = {"row": range(start, start + count), "embedding": vectors, "file": names}
        pq.write_table(pa.table({k: pa.array(v) for k, v in content.items()}), file)
        shards[file.name] = count
    manifest = {"job": {"model": "random numbers"}, "shards": shards}
    (folder / "embeddings.json").write_text(json.dumps(manifest), encoding="utf-8")


def measure(folder: Path, queries: int, k: int) -> dict[str, Any]:
    """Opens the table twice, as the first search and all later ones do, and searches it."""
    first = timed(lambda: Index.open(folder))[1]
    index, opening = timed(lambda: Index.open(folder))
    rng = np.random.default_rng(1)
    asked = rng.normal(size=(queries, index.vectors.shape[1])).astype(np.float32)
    cold = timed(lambda: index.nearest(asked[0], k))[1]
    told = [timed(lambda query=query: index.nearest(query, k)) for query in asked]
    expected = exactly(index.vectors, asked, k)
    shared = [
        len(set(rows) & set(exact)) for ((rows, _), _), exact in zip(told, expected, strict=True)
    ]
    return {
        "rows": len(index),
        "width": index.vectors.shape[1],
        "k": k,
        "queries": queries,
        "recall": sum(shared) / (k * queries),
        "first_opening": first,
        "opening": opening,
        "first_query": cold,
        "query": {
            name: statistics.median(seconds[name] for _, seconds in told)
            for name in ("wall_s", "processor_s")
        },
        "slowest_query": {
            name: max(seconds[name] for _, seconds in told) for name in ("wall_s", "processor_s")
        },
        "load": [round(value, 1) for value in os.getloadavg()],
        "threads": torch.get_num_threads(),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def timed(call: Any) -> tuple[Any, dict[str, float]]:
    """What a call gives, and its seconds on the clock and of all processors together."""
    wall, own = time.perf_counter(), time.process_time()
    value = call()
    seconds = {"wall_s": time.perf_counter() - wall, "processor_s": time.process_time() - own}
    return value, {name: round(value, 4) for name, value in seconds.items()}


def exactly(vectors: np.ndarray, queries: np.ndarray, k: int) -> list[np.ndarray]:
    """Rows of the highest cosines in float32, by plain NumPy."""
    scores = np.empty((len(queries), len(vectors)), np.float32)
    for start in range(0, len(vectors), _SHARD):
        block = vectors[start : start + _SHARD].astype(np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        scores[:, start : start + _SHARD] = queries @ block.T
    return [np.argsort(-row, kind="stable")[:k] for row in scores]


def processor() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "")


if __name__ == "__main__":
    sys.exit(main())
