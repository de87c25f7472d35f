"""How likely each combination is where modalities are missing at random at a rate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mcutune.domain.combination import combinations


def highest_rate(modalities: int) -> float:
    """(M − 1) / M: above it, some row would have nothing left."""
    return (modalities - 1) / modalities


def shares_at_rate(rate: float, modalities: int) -> npt.NDArray[np.float64]:
    """The probability [C] of each combination where every row keeps one modality, drawn evenly, and of the other places
    exactly as many are filled as the rate asks for; a rate above (M − 1) / M becomes that.

    A row has combination c if the modality that it keeps is in c, of the M − 1 other places those of c are filled, and
    no others: |c| / M · f^(|c| − 1) · (1 − f)^(M − |c|), f the share of other places that are filled. The random
    protocol's masks realise this up to what 1 row in N changes.
    """
    filled = (1 - min(rate, highest_rate(modalities))) * modalities - 1
    share = filled / (modalities - 1) if modalities > 1 else 0.0
    sizes = np.array([one.size for one in combinations(modalities)])
    chance = sizes / modalities * share ** (sizes - 1) * (1 - share) ** (modalities - sizes)
    return chance / chance.sum()
