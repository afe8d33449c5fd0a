"""The loss of direct preference optimisation, with the paper's two terms beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class DpoLoss:
    """The loss of one batch, given the SDK's log-probs of chosen, rejected, chosen, ... in that order.

    Args:
        beta: Strength of the pull towards the reference.
        nll_coefficient: Weight of the chosen answers' NLL.
        reference: Sums of the reference log-probs of each row's trained tokens, in nats.
        kl_coefficient: Weight of the "KL" of the paper's OpenRLHF fork: the mean over an answer's tokens of the squared
            log-prob difference to the reference, averaged over chosen and rejected.
        normalise: `none` for margins in sums over an answer's tokens, `length` for margins in means.
        values: The reference log-probs one by one, for a KL coefficient above 0.
    """

    def __init__(
        self,
        beta: float,
        nll_coefficient: float,
        reference: Sequence[float],
        *,
        kl_coefficient: float = 0.0,
        normalise: str = "none",
        values: Sequence[Sequence[float]] = (),
    ) -> None:
        self.beta = beta
        self.nll_coefficient = nll_coefficient
        self.reference = list(reference)
        self.kl_coefficient = kl_coefficient
        self.by_length = normalise == "length"
        self.values = values

    def __call__(self, data: Sequence[Any], logprobs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss and metrics; `logprobs[i]` has one value a target token, of which weight 1 marks the trained ones."""
        masks = [datum.loss_fn_inputs["weights"].to_torch() > 0 for datum in data]
        return self.of([values[mask] for values, mask in zip(logprobs, masks, strict=True)])

    def of(self, logprobs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss and metrics from the log-probs of the trained tokens alone."""
        import torch

        rows = list(zip(logprobs, self.reference, strict=True))
        ratios = torch.stack([(v.sum() - r) / (len(v) if self.by_length else 1) for v, r in rows])
        margins = ratios[::2] - ratios[1::2]
        dpo = -torch.nn.functional.logsigmoid(self.beta * margins).mean()
        nll = torch.stack([-values.mean() for values in logprobs[::2]]).mean()
        before = sum(-r / len(v) for v, r in rows[::2]) / len(margins)
        metrics = {
            "dpo_loss:mean": dpo.item(),
            "chosen_nll:mean": nll.item(),
            "nll_rise:mean": nll.item() - before,
            "margin:mean": margins.mean().item(),
            "accuracy:mean": (margins > 0).float().mean().item(),
        }
        loss = dpo + self.nll_coefficient * nll
        if self.kl_coefficient:
            apart = [
                (v - torch.tensor(r, dtype=v.dtype)).square().mean() for v, r in zip(logprobs, self.values, strict=True)
            ]
            kl = torch.stack(apart).mean()
            metrics["kl:mean"] = kl.item()
            loss = loss + self.kl_coefficient * kl
        return loss, metrics
