"""The ways of getting per-sample norms and clipped sums, as published and ours.

mix_opt             ghost norm where 2 T^2 <= p d, else the per-sample gradient, formed once and
                    summed (BK-MixOpt, Bu et al. 2023)
mix_flops           as mix_opt, but ghost norm where T (d + p) <= d p: fewer multiplications
mix_time            for each layer the fastest of all ways here, tried on its first batch and on
                    one half as large again (two runs may choose, and so round, differently); no
                    gradient is kept where x and g are smaller
mix_ghost           as mix_opt, but a per-sample gradient is dropped after its norm and the sum
                    comes from what was kept (BK-MixGhostClip, Bu et al. 2023)
base                ghost norm everywhere (BK, Bu et al. 2023)
ghost_clip          ghost norm everywhere, then a second backward pass (Li et al. 2022)
fast_gradient_clip  per-sample gradients layer by layer for their norms, then a second backward
                    pass (Lee & Kifer 2021)
"""

from __future__ import annotations

from dpmedbench import mechanisms

MODES = tuple(mechanisms.capabilities("bookkeeping").modes)
GHOST, FORMED = "ghost norm", "per-sample gradient"


def method(mode: str, sizes: tuple[int, int, int] | None) -> str:
    """GHOST or FORMED for a layer of `sizes` (T, d, p); None where it must be formed."""
    if sizes is None or mode == "fast_gradient_clip":
        return FORMED
    t, d, p = sizes
    match mode:
        case "base" | "ghost_clip":
            ghost = True
        case "mix_flops":
            ghost = t * (d + p) <= d * p
        case _:
            ghost = 2 * t**2 <= p * d
    return GHOST if ghost else FORMED
