"""Scene transfer: an image takes the colours of another scene by optimal transport (STICL).

Paper: Huang et al., "Spatial-Temporal Invariant Contrastive Learning for Remote Sensing Scene
Classification", IEEE GRSL 2022, doi 10.1109/LGRS.2022.3173419. Official code: GeoX-Lab/G-RSIM,
folder T-SC-STICL.

`transfer_scene` is the released algorithm to the last bit. `transfer_batch` is for a training step:
two fast maps that the paper does not have, computed for a whole batch on its own device, and the
exact one spread over threads.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .transport_maps import gaussian, rotations, sliced

EXACT_SOLVERS = ("emd", "pot")
"""Solvers of the transport problem between two samples of pixels, one pair of images at a time."""

BATCH_SOLVERS = ("gaussian", "sliced", *EXACT_SOLVERS)
"""Solvers of `transfer_batch`; the first two stay on the device."""


def transfer_scene(
    content: np.ndarray,
    scene: np.ndarray,
    *,
    num_samples: int = 1000,
    seed: int = 42,
    solver: str = "emd",
    plan: np.ndarray | None = None,
) -> np.ndarray:
    """Gives an image the colours of another scene, exactly as STICL's released code does.

    `num_samples` pixels of each image are matched by the plan that moves the content's colours
    into the scene's at the least total squared distance. A pixel then moves as its nearest sampled
    colour does (the lowest sample where several are nearest). The released code scales values by
    256 and back by 255 with truncation, and so do we: an image that moves nowhere gets at most one
    level darker. It resizes both images to 256 x 256 first, which is left to the caller.

    Args:
        content: (H, W, C) uint8 or uint16, any number of bands.
        scene: (H', W', C) of the same type, any size.
        num_samples: Pixels drawn from each image, with replacement; memory grows with its square.
        seed: Seed of the draw. The released code has 42 in every call, so the same positions each
            time.
        solver: "emd" (scipy) or "pot" (the package POT, installed separately). Both are exact and
            take 0.1 s for 1,000 samples on one core. Repeated colours make the optimal plan not
            unique: only "pot" also picks the plan of the released code, hence its very image.
        plan: Use this plan in place of the solver's: (num_samples,) integers, the scene sample of
            each content sample, or (num_samples, num_samples) weights >= 0, a row for each content
            sample, which goes to the weighted mean of the scene samples.

    Returns:
        (H, W, C) of the content's type.

    Raises:
        UserError: For an unknown solver, one that is not installed, or no samples.
        ValueError: For images or a plan of the wrong shape or type.
    """
    _check_solver(solver, EXACT_SOLVERS, num_samples)
    for name, image in (("content", content), ("scene", scene)):
        if image.ndim != 3 or image.size == 0:
            raise ValueError(f"{name} must be (H, W, C) with pixels, not {image.shape}.")
    _check_pair(content, scene, bands=2)
    pixels = content.reshape(-1, content.shape[2])  # (H*W, C)
    scene_pixels = scene.reshape(-1, scene.shape[2])  # (H'*W', C)
    positions = sample_positions(len(pixels), len(scene_pixels), num_samples, seed)
    source = pixels[positions[0]].astype(np.float64)  # (n, C)
    target = scene_pixels[positions[1]].astype(np.float64)  # (n, C)
    if plan is None:
        plan = exact_plan(source, target, solver=solver)
    displacement = _barycentres(plan, target) - source  # (n, C)

    colours, inverse = _unique_colours(pixels)  # an image has far fewer colours than pixels
    moved = colours + displacement[_nearest_sample(colours, source)]
    levels = np.iinfo(content.dtype).max
    # In float64, as there: sums and quotients by 256 are exact, so truncation is reproducible.
    moved = np.clip(moved / (levels + 1), 0, 1) * levels
    return moved.astype(content.dtype)[inverse].reshape(content.shape)


def sample_positions(
    content_pixels: int, scene_pixels: int, num_samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the pixels that stand for two images, with replacement.

    Args:
        content_pixels: H*W of the content.
        scene_pixels: H*W of the scene.
        num_samples: n, drawn from each.
        seed: Seed of NumPy's legacy generator, the one the released code draws with.

    Returns:
        Two (n,) int64 arrays of row-major pixel positions, the content's drawn first.
    """
    random = np.random.RandomState(seed)
    return random.randint(content_pixels, size=num_samples), random.randint(
        scene_pixels, size=num_samples
    )


def exact_plan(source: np.ndarray, target: np.ndarray, *, solver: str = "emd") -> np.ndarray:
    """Matches two equally large sets of colours at the least total squared distance.

    With uniform weights an optimal plan is a permutation, so exact transport is an assignment.

    Args:
        source: (n, C) integer colours of any numeric type.
        target: (n, C) integer colours.
        solver: "emd" or "pot", see `transfer_scene`.

    Returns:
        (n,) int64, the row of `target` for each row of `source`.

    Raises:
        UserError: For an unknown solver or one that is not installed.
    """
    _check_solver(solver, EXACT_SOLVERS, len(source))
    source, target = source.astype(np.float64), target.astype(np.float64)
    # Integers all the way (far below 2^53), so that nothing about the optimum is rounded.
    cost = (source**2).sum(1)[:, None] + (target**2).sum(1) - 2 * source @ target.T  # (n, n)
    if solver == "pot":
        try:
            ot = importlib.import_module("ot")
        except ImportError:
            raise UserError(
                "Solver 'pot' needs the package POT: install it (pip install POT) or use 'emd', "
                "which is as exact."
            ) from None
        uniform = np.full(len(source), 1 / len(source))
        # Scaled as in the released code, so that the network simplex repeats its pivots.
        return ot.emd(uniform, uniform, cost / 256**2).argmax(1)
    from scipy.optimize import linear_sum_assignment

    # scipy's shortest augmenting paths start from dual prices of zero. Taking good prices off rows
    # and columns changes no plan's rank and makes the paths four times shorter (0.40 to 0.09 s).
    cost -= np.round(_row_prices(cost))[:, None]
    cost -= cost.min(0)
    cost -= cost.min(1)[:, None]
    return linear_sum_assignment(cost)[1]


def transfer_batch(
    content: Tensor,
    scene: Tensor,
    *,
    solver: str = "gaussian",
    num_samples: int = 1000,
    seed: int = 42,
    num_steps: int = 10,
    num_threads: int | None = None,
) -> Tensor:
    """Gives each image of a batch the colours of the scene at the same place in another batch.

    The fast solvers run where the batch is and never wait for the device:

    * "gaussian": the affine map that is optimal between normal distributions with the two images'
      means and covariances (Dowson and Landau, 1982; for colours: Pitié and Kokaram, "The linear
      Monge-Kantorovitch linear colour mapping for example-based colour transfer", CVMP 2007). It
      uses every pixel and keeps the image smooth.
    * "sliced": iterative distribution transfer (Pitié, Kokaram and Dahyot, "Automated colour
      grading using colour distribution transfer", CVIU 2007; sliced optimal transport: Bonneel et
      al., JMIV 2015). In each step the colours are turned by a random rotation and each axis is
      mapped monotonically onto the scene's, by the quantiles of sampled pixels. It follows the
      scene's whole distribution, several modes included.

    "emd" and "pot" are `transfer_scene` for each image, in threads on the CPU.

    Args:
        content: (B, C, H, W) uint8 or uint16, on any device.
        scene: (B, C, H', W') of the same type, on the same device.
        solver: "gaussian", "sliced", "emd" or "pot".
        num_samples: Pixels drawn from each image, by all solvers but "gaussian".
        seed: Seed of the positions, common to the batch, and of the rotations of "sliced".
        num_steps: Rotations of "sliced".
        num_threads: Number of threads of the exact solvers; None takes torch's number.

    Returns:
        (B, C, H, W) of the content's type, on its device; clipped to the type's range.

    Raises:
        UserError: For an unknown solver, one that is not installed, or no samples.
        ValueError: For batches of the wrong shape or type.
    """
    _check_solver(solver, BATCH_SOLVERS, num_samples)
    for name, images in (("content", content), ("scene", scene)):
        if images.ndim != 4 or 0 in images.shape[1:]:
            raise ValueError(f"{name} must be (B, C, H, W) with pixels, not {tuple(images.shape)}.")
    if len(content) != len(scene):
        raise ValueError(f"{len(content)} contents need as many scenes, not {len(scene)}.")
    _check_pair(content, scene, bands=1)
    if solver in EXACT_SOLVERS:
        return _exact_batch(content, scene, num_samples, seed, solver, num_threads)
    with torch.no_grad(), torch.autocast(content.device.type, enabled=False):
        x = content.flatten(2).float()  # (B, C, N)
        y = scene.flatten(2).float()  # (B, C, M)
        if solver == "gaussian":
            moved = gaussian(x, y)
        else:
            positions = sample_positions(x.shape[2], y.shape[2], num_samples, seed)
            moved = sliced(x, y, positions, rotations(num_steps, x.shape[1], seed))
        moved = moved.round_().clamp_(0, torch.iinfo(content.dtype).max)
        return moved.to(content.dtype).view_as(content)


def _check_solver(solver: str, known: Sequence[str], num_samples: int) -> None:
    if solver not in known:
        raise UserError(f"Unknown solver {solver!r} of the scene transfer: use {', '.join(known)}.")
    if num_samples < 1:
        raise UserError(
            f"The setting num_samples is {num_samples}: the scene transfer needs 1 or more."
        )


def _check_pair(content: np.ndarray | Tensor, scene: np.ndarray | Tensor, *, bands: int) -> None:
    """Same integer type and, along the axis `bands`, the same bands."""
    kinds = [str(image.dtype).removeprefix("torch.") for image in (content, scene)]
    if kinds[0] not in ("uint8", "uint16") or kinds[0] != kinds[1]:
        raise ValueError(
            f"The content and the scene must both be uint8 or both be uint16, not {kinds[0]} and "
            f"{kinds[1]}."
        )
    if content.shape[bands] != scene.shape[bands]:
        raise ValueError(
            f"The content has {content.shape[bands]} bands and the scene has {scene.shape[bands]}: "
            "give both the same bands in the same order."
        )


def _barycentres(plan: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Where a plan sends each content sample: (n, C) means of the scene samples `target`."""
    n = len(target)
    if plan.shape == (n,) and np.issubdtype(plan.dtype, np.integer):
        if plan.min() < 0 or plan.max() >= n:
            raise ValueError(f"The plan must name scene samples from 0 to {n - 1}.")
        return target[plan]
    if plan.shape != (n, n):
        raise ValueError(
            f"The plan must be ({n},) integers or ({n}, {n}) weights for {n} samples, not "
            f"{plan.shape} of {plan.dtype}."
        )
    mass = plan.sum(1, keepdims=True)  # (n, 1)
    if not (mass > 0).all():
        raise ValueError(
            "The plan must give every content sample some weight: a row of it sums to 0."
        )
    return (plan / mass) @ target


def _unique_colours(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows of (N, C) pixels as (U, C) float64, and (N,) the row of each pixel."""
    bands = pixels.shape[1]
    key = np.dtype(np.uint32 if bands * pixels.itemsize <= 4 else np.uint64)
    if bands * pixels.itemsize > key.itemsize:  # comparing whole rows costs more than it saves
        return pixels.astype(np.float64), np.arange(len(pixels))
    padded = np.zeros((len(pixels), key.itemsize // pixels.itemsize), pixels.dtype)
    padded[:, :bands] = pixels
    keys, inverse = np.unique(padded.view(key)[:, 0], return_inverse=True)
    return keys[:, None].view(pixels.dtype)[:, :bands].astype(np.float64), inverse


def _nearest_sample(colours: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """(U,) index of the nearest of (n, C) samples for each of (U, C) colours, lowest in ties.

    Squared distances between colours are integers. One more axis, in which sample i lies at the
    square root of i/n and every colour at 0, adds i/n < 1 to them: it orders ties and nothing else.
    """
    from scipy.spatial import KDTree

    height = np.sqrt(np.arange(len(samples)) / len(samples))[:, None]
    tree = KDTree(np.concatenate([samples, height], axis=1))
    return tree.query(np.concatenate([colours, np.zeros((len(colours), 1))], axis=1))[1]


def _row_prices(cost: np.ndarray) -> np.ndarray:
    """(n,) dual prices of the rows of an (n, n) cost, good ones but not the optimal ones.

    Sinkhorn's iterations on the first quarter of the samples (which are drawn at random), with the
    entropy lowered in steps; the rows then take the best offer of the columns priced so far. Any
    price is valid: it decides how long the exact solver takes and not what it finds.
    """
    m = len(cost) // 4
    if m < 16 or not (scale := cost[:m, :m].mean()) > 0:
        return np.zeros(len(cost))
    part = cost[:m, :m]
    rows, columns = np.zeros(m), np.zeros(m)
    # Measured on pairs of aerial images: finer or longer schedules cost what they save.
    for entropy, steps in ((0.3, 10), (0.1, 10), (0.03, 10), (0.01, 40)):
        unit = entropy * scale
        kernel = np.exp((rows[:, None] + columns - part) / unit).astype(np.float32)
        b = np.ones(m, np.float32)
        for _ in range(steps):
            a = 1 / (kernel @ b + 1e-20)
            b = 1 / (a @ kernel + 1e-20)
        rows += unit * np.log(a)
        columns += unit * np.log(b)
    return (cost[:, :m] - columns).min(1)


def _exact_batch(
    content: Tensor,
    scene: Tensor,
    num_samples: int,
    seed: int,
    solver: str,
    num_threads: int | None,
) -> Tensor:
    """`transfer_scene` for every pair of a batch; both solvers let other threads run meanwhile."""
    pairs = [
        (c.movedim(0, -1).numpy(), s.movedim(0, -1).numpy())
        for c, s in zip(content.cpu(), scene.cpu(), strict=True)
    ]

    def transfer(pair: tuple[np.ndarray, np.ndarray]) -> Tensor:
        moved = transfer_scene(*pair, num_samples=num_samples, seed=seed, solver=solver)
        return torch.from_numpy(moved).movedim(-1, 0)

    with ThreadPoolExecutor(num_threads or torch.get_num_threads()) as pool:
        moved = list(pool.map(transfer, pairs))
    return torch.stack(moved).to(content.device) if moved else content.clone()
