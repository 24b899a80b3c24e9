"""Beyond accuracy: what the top-k lists of all users have in common.

Lists are (L, >= k) item ids 1..V, best first; 0 fills a list that has fewer items.
No lists: NaN.
"""

import numpy as np
from numpy.typing import NDArray

from negrec.evaluation.metrics import Floats, gini

Lists = NDArray[np.int64]


def coverage(lists: Lists, k: int, n_items: int) -> float:
    """Share of the catalogue that is in at least one list, in [0, 1]."""
    if not len(lists):
        return float("nan")
    return float((_exposure(lists, k, n_items) > 0).mean())


def exposure_gini(lists: Lists, k: int, n_items: int) -> float:
    """Gini coefficient of the number of lists that each item of the catalogue is in.

    0 where every item is shown equally often, 1 - 1/V where all show the same one.
    """
    return gini(_exposure(lists, k, n_items))


def popularity(lists: Lists, k: int, counts: NDArray[np.int64]) -> float:
    r"""Average recommendation popularity: the training count of what is shown.

    .. math:: ARP = \frac{1}{|L|} \sum_{l \in L} \frac{1}{|l|} \sum_{i \in l} c_i

    Abdollahpouri et al., 2019 (arXiv:1901.07555).

    Args:
        lists: (L, >= k).
        k: the length of the lists.
        counts: training interactions c of each item, (V,).
    """
    return _mean_of_lists(lists, k, counts.astype(np.float64))


def novelty(lists: Lists, k: int, counts: NDArray[np.int64]) -> float:
    r"""Mean self-information of what is shown, in bits: how little of it was to be expected.

    .. math:: \frac{1}{|L|} \sum_{l \in L} \frac{1}{|l|} \sum_{i \in l}
       -\log_2 \frac{c_i}{\sum_j c_j}

    Zhou et al., 2010 (PNAS 107:4511, "surprisal"), with shares of the interactions where they
    have shares of the users: the mean is then log2 V for a catalogue of equally popular items.

    Args:
        lists: (L, >= k).
        k: the length of the lists.
        counts: training interactions c of each item, (V,).
    """
    # An item never seen in training counts as seen once: its information would be infinite.
    seen = np.maximum(counts, 1)
    return _mean_of_lists(lists, k, np.log2(seen.sum()) - np.log2(seen))


def _exposure(lists: Lists, k: int, n_items: int) -> Floats:
    """In how many lists each item is, (V,)."""
    return np.bincount(lists[:, :k].ravel(), minlength=n_items + 1)[1:].astype(np.float64)


def _mean_of_lists(lists: Lists, k: int, value: Floats) -> float:
    """Mean over the lists of the mean value of their items; empty lists are left out."""
    shown = lists[:, :k]
    length = (shown > 0).sum(1)
    total = np.concatenate([[0.0], value])[shown].sum(1)
    filled = length > 0
    return float((total[filled] / length[filled]).mean()) if filled.any() else float("nan")
