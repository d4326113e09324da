"""Local differential privacy: ordinary training on images that were perturbed once, for all cells.

laplace           noise of its own for every pixel (Dwork et al. 2006)
scalar_per_image  one number for all pixels of an image, as in the code of a published study; it
                  hides nothing, and nothing is promised of it

`privacy.local` has the noise and what it promises, `perturbation` writes the images.
"""

from __future__ import annotations

from dpmedbench.mechanisms import Capabilities, Mode

_ORDINARY = Mode({("none", "none")})

CAPABILITIES = Capabilities(
    private=False,
    local=True,
    modes={"laplace": _ORDINARY, "scalar_per_image": _ORDINARY},
)
