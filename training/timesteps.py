"""How the timesteps of a batch are drawn."""

import torch

from ..model import flow


def stratified(batch, ratio, even=0.0):
    """[batch] in 0…1000, spread over the whole range so that every step sees all of it.

    They are moved by `ratio` (`flow.shift_timesteps`), but for a share `even` of them.
    """
    uniform = (torch.randperm(batch) + torch.rand(batch)) / batch * flow.NUM_TIMESTEPS
    return torch.where(torch.rand(batch) < even, uniform, flow.shift_timesteps(uniform, ratio))
