"""Newton-Schulz orthogonalisation of a batch of matrices (the Muon step of a fast-weight write)."""

from __future__ import annotations

import torch
from torch import Tensor

COEFFICIENTS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"""(a, b, c) of the five steps X <- aX + (bA + cAA)X with A = XX' (LaCT's quintic schedule)."""

NORM_EPS = 1e-7


def newton_schulz(matrices: Tensor, dtype: str) -> Tensor:
    """Roughly orthogonalise each matrix of [..., R, C]; the result has the input's dtype.

    `dtype` ("bfloat16" or "float32") is the precision of the products; float64 input stays float64.
    Five fixed steps push the singular values towards 1; this is not an exact polar factor. Equal to
    `plain_newton_schulz`, but saves only its input for the backward pass.
    """
    from spatial_ttt.model.kernels import newton_schulz as kernel
    from spatial_ttt.model.kernels import resolve_backend

    work = _work_dtype(matrices, dtype)
    problem = kernel.triton_problem(matrices, work)
    backend, _ = resolve_backend("newton_schulz", matrices.device, work, problem)
    if matrices.shape[-2] > matrices.shape[-1]:
        return kernel.newton_schulz(matrices.mT, work, backend).mT
    return kernel.newton_schulz(matrices, work, backend)


def plain_newton_schulz(matrices: Tensor, dtype: str) -> Tensor:
    """The formula as it stands in the paper; what every faster version is measured against."""
    x = matrices.to(_work_dtype(matrices, dtype))
    transposed = x.shape[-2] > x.shape[-1]
    if transposed:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + NORM_EPS)
    for a, b, c in COEFFICIENTS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    if transposed:
        x = x.mT
    return x.to(matrices.dtype)


def _work_dtype(matrices: Tensor, dtype: str) -> torch.dtype:
    return matrices.dtype if matrices.dtype == torch.float64 else getattr(torch, dtype)
