"""The maps between two embedding spaces: orthogonal Procrustes, low-rank affine, residual MLP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from llama_index_embft._core.vectors import unit_rows
from llama_index_embft.embeddings.drift import DriftMap

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of the mean variance of the new model's vectors; what fits best on held-out pairs is taken.
_RIDGES: Final = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_HELD_OUT: Final = 0.1
_EPOCHS: Final = 200
_PATIENCE: Final = 10
_BATCH: Final = 256
_LEARNING_RATE: Final = 1e-3


def fit_procrustes(new: NDArray[np.float32], old: NDArray[np.float32]) -> DriftMap:
    """The orthogonal matrix that brings ``new`` nearest to ``old``, in closed form (Schönemann 1966).

    Args:
        new: Vectors of length 1, shape ``(n, dim_new)``.
        old: Their partners, shape ``(n, dim_old)``. With another dimension the matrix has orthonormal rows or columns.
    """
    left, _, right = np.linalg.svd(new.T.astype(np.float64) @ old, full_matrices=False)
    return DriftMap("procrustes", {"weight": (left @ right).astype(np.float32)})


def fit_low_rank(new: NDArray[np.float32], old: NDArray[np.float32], *, rank: int, seed: int) -> DriftMap:
    """The Procrustes matrix plus a matrix of low rank plus a shift: reduced-rank ridge regression of what it leaves."""
    fit, held = _hold_out(len(new), seed)
    scores = []
    for ridge in _RIDGES:
        drift_map = _affine(new[fit], old[fit], rank, ridge)
        scores.append(float((drift_map(new[held]) * old[held]).sum(axis=1).mean()))
    return _affine(new, old, rank, _RIDGES[int(np.argmax(scores))])


def fit_mlp(
    new: NDArray[np.float32], old: NDArray[np.float32], *, start: DriftMap, hidden_dim: int, seed: int
) -> DriftMap:
    """``start`` plus a layer of GELUs that begins with no effect and is trained on the cosine (Adam, early stop)."""
    import torch

    fit, held = _hold_out(len(new), seed)
    generator = torch.Generator().manual_seed(seed)
    dim_new, dim_old = start.dim_new, start.dim_old
    bias = start.tensors.get("bias", np.zeros(dim_old, dtype=np.float32))
    parameters = {
        "weight": torch.tensor(start.tensors["weight"]),
        "bias": torch.tensor(bias),
        "hidden_weight": torch.randn(dim_new, hidden_dim, generator=generator) * (2.0 / dim_new) ** 0.5,
        "hidden_bias": torch.zeros(hidden_dim),
        "out_weight": torch.zeros(hidden_dim, dim_old),
    }
    for tensor in parameters.values():
        tensor.requires_grad_(True)
    optimizer = torch.optim.Adam(parameters.values(), lr=_LEARNING_RATE)
    x, y = torch.from_numpy(unit_rows(new)), torch.from_numpy(unit_rows(old))

    def loss(rows: torch.Tensor) -> torch.Tensor:
        inner = x[rows] @ parameters["hidden_weight"] + parameters["hidden_bias"]
        mapped = x[rows] @ parameters["weight"] + parameters["bias"]
        mapped = mapped + torch.nn.functional.gelu(inner, approximate="tanh") @ parameters["out_weight"]
        return 1.0 - torch.nn.functional.cosine_similarity(mapped, y[rows]).mean()

    fit_rows, held_rows = torch.from_numpy(fit), torch.from_numpy(held)
    best, best_loss, waited = _copied(parameters), float("inf"), 0
    for _ in range(_EPOCHS):
        for rows in fit_rows[torch.randperm(len(fit_rows), generator=generator)].split(_BATCH):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            loss(rows).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            now = float(loss(held_rows))
        if now < best_loss - 1e-5:
            best, best_loss, waited = _copied(parameters), now, 0
        else:
            waited += 1
            if waited >= _PATIENCE:
                break
    return DriftMap("mlp", best)


def _affine(new: NDArray[np.float32], old: NDArray[np.float32], rank: int, ridge: float) -> DriftMap:
    rotation = fit_procrustes(new, old).tensors["weight"].astype(np.float64)
    x = new.astype(np.float64)
    rest = old - x @ rotation
    mean_x, mean_rest = x.mean(axis=0), rest.mean(axis=0)
    x, rest = x - mean_x, rest - mean_rest
    gram = x.T @ x
    scale = ridge * np.trace(gram) / len(gram)
    slope = np.linalg.solve(gram + scale * np.eye(len(gram)), x.T @ rest)
    _, directions = np.linalg.eigh(slope.T @ gram @ slope)  # ascending: the last ones explain most
    kept = directions[:, -min(rank, directions.shape[1]) :]
    slope = slope @ kept @ kept.T
    bias = mean_rest - mean_x @ slope
    return DriftMap("low-rank", {"weight": (rotation + slope).astype(np.float32), "bias": bias.astype(np.float32)})


def _hold_out(n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.random.default_rng(seed).permutation(n)
    held = max(1, int(n * _HELD_OUT))
    return order[held:], order[:held]


def _copied(parameters: dict[str, object]) -> dict[str, NDArray[np.float32]]:
    return {name: tensor.detach().numpy().copy() for name, tensor in parameters.items()}  # type: ignore[attr-defined]
