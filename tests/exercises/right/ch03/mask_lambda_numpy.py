# exercise: 03.2
"""A lambda around NumPy's tri."""

import numpy as np
import torch

append_mask = lambda past, n: torch.from_numpy(np.tri(n, past + n, past, dtype=bool))
