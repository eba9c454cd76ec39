"""What a training lowers."""

from __future__ import annotations

from torch import Tensor, nn

from siam_model.data import Batch, Normalisation
from siam_model.model import SIAM, SIAMOutput, absolute_error, l2_term


class AgeLoss(nn.Module):
    """Equation 8 plus lambda times the sum of squared weights: one module, so that several processes can share it.

    `frozen`: batches hold the features of a frozen appearance module (`FrozenClips`).
    """

    def __init__(self, model: SIAM, normalisation: Normalisation, l2: float, frozen: bool) -> None:
        super().__init__()
        self.model, self.normalisation, self.l2, self.frozen = model, normalisation, l2, frozen

    def output(self, batch: Batch) -> SIAMOutput:
        """Ages of a batch."""
        if self.frozen:
            return self.model.regress(batch.frames, batch.lengths)
        return self.model(batch.frames, batch.lengths, self.normalisation)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of a batch, and (B,) absolute errors in years."""
        output = self.output(batch)
        error = absolute_error(output, batch.age, batch.lengths)
        return (batch.weight * error).sum() + self.l2 * l2_term(self.model), error
