"""Book-Keeping: private training of any torch model from one forward and one backward pass.

`PrivacyEngine` is the way in for a training loop of your own (docs/bookkeeping.md); `BookKeeper`
gives the clipped sums alone.
"""

from dpmedbench.bookkeeping.engine import BookKeeper
from dpmedbench.bookkeeping.modes import MODES
from dpmedbench.bookkeeping.privacy_engine import PrivacyEngine

__all__ = ["MODES", "BookKeeper", "PrivacyEngine"]
