"""Computes the best linear autoencoder in closed form, from only the mean and covariance of CIFAR-10."""

from dataclasses import dataclass

import numpy as np

from colorizer.pixels.color import LUMINANCE_WEIGHTS, RGB_TO_CHROMA

# The ridge is this share of the mean variance of a luminance value. It stands in for the variance outside the 512
# factors, so it is larger than full statistics would need. Of 0.001 to 1, it was the best on the validation images.
_RIDGE = 3e-2
# These matrices compute each target from R, G and B.
_FROM_RGB = {"rgb": np.eye(3, dtype=np.float32), "chroma": RGB_TO_CHROMA, "gray": LUMINANCE_WEIGHTS[:, None]}


@dataclass(frozen=True)
class LinearAutoencoder:
    """A linear map from luminance to an output; its first k columns are the best map of rank k.

    All arrays are float32. The number of outputs is 3072 for `rgb`, 2048 for `chroma` and 1024 for `gray`.
    """

    input_mean: np.ndarray  # (1024,)
    encoder: np.ndarray  # (1024, 512)
    decoder: np.ndarray  # (512, outputs)
    output_mean: np.ndarray  # (outputs,)

    def encode(self, luminance: np.ndarray, latent_dim: int) -> np.ndarray:
        """Return the bottleneck, float32 (N, latent_dim), of luminance, float32 (N, 32, 32, 1) in [0, 1]."""
        return (luminance.reshape(len(luminance), -1) - self.input_mean) @ self.encoder[:, :latent_dim]

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """Return images, float32 (N, 32, 32, C), from a bottleneck, float32 (N, latent_dim)."""
        flat = latent @ self.decoder[: latent.shape[1]] + self.output_mean
        return flat.reshape(len(latent), 32, 32, -1)


def solve(mean: np.ndarray, factors: np.ndarray, target: str = "rgb") -> LinearAutoencoder:
    """Fit the linear autoencoder for every bottleneck up to 512 at once.

    Reduced-rank regression (Izenman 1975) with ridge r: with the full-rank solution B = C_xy (C_yy + r I)^-1,
    the best of rank k is V_k V_k^T B, where V_k are the top eigenvectors of the fitted covariance
    B (C_yy + r I) B^T. It is solved in the space of the 512 factors F: x = mean + F^T z, y = luminance of x.

    Args:
        mean: float32 (3072,), the mean image, flattened from (32, 32, 3), in [0, 1].
        factors: float32 (F, 3072), with factors.T @ factors the covariance.
        target: `rgb`, `chroma` or `gray`, as in `ModelConfig`.
    """
    if target not in _FROM_RGB:
        raise ValueError(f"expected target rgb, chroma or gray, received {target!r}")
    # Splitting is linear, so it applies to the factors as to images.
    pixels, mean = factors.reshape(-1, 1024, 3).astype(np.float64), mean.reshape(1024, 3)
    input_factors, input_mean = pixels @ LUMINANCE_WEIGHTS, mean @ LUMINANCE_WEIGHTS  # (512, 1024) and (1024,)
    output_factors = (pixels @ _FROM_RGB[target]).reshape(len(pixels), -1)
    output_mean = (mean @ _FROM_RGB[target]).reshape(-1)
    gram = input_factors @ input_factors.T  # (512, 512)
    ridge = _RIDGE * np.trace(gram) / 1024
    variances, axes = np.linalg.eigh(gram)
    variances = np.maximum(variances, 0)
    # H = gram (gram + r I)^-1; the fitted covariance is F^T H F, whose eigenvectors are those of the small
    # matrix H^(1/2) F F^T H^(1/2), carried over by H^(1/2) F.
    fitted = (axes * np.sqrt(variances / (variances + ridge))) @ axes.T @ output_factors
    strengths, directions = np.linalg.eigh(fitted @ fitted.T)
    strengths, directions = np.maximum(strengths[::-1], 1e-12), directions[:, ::-1]
    decoder = (directions / np.sqrt(strengths)).T @ fitted  # (512, outputs), orthonormal rows, strongest first
    full_rank = (axes / (variances + ridge)) @ axes.T @ input_factors  # (512, 1024): z as regressed on y
    encoder = (decoder @ output_factors.T @ full_rank).T
    return LinearAutoencoder(*(array.astype(np.float32) for array in (input_mean, encoder, decoder, output_mean)))
