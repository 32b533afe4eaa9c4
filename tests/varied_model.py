"""A random model gives almost the same scores to all sounds; here one gets scores that differ from clip to clip."""

from collections.abc import Callable

import torch


def vary_scores(model, seed: int, logits_of_noise: Callable[[], torch.Tensor]):
    """Draw larger weights for a stock AST classifier, and spread its logits around zero.

    Args:
        model (`transformers.ASTForAudioClassification`): changed in place.
        seed (`int`): seed of the weights.
        logits_of_noise (`Callable`): gives the model's logits of some sounds, `(sounds, labels)`.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=generator)
        logits, dense = logits_of_noise(), model.classifier.dense
        spread = logits.std(dim=0)
        dense.bias.copy_((dense.bias - logits.mean(dim=0)) / spread)
        dense.weight.div_(spread[:, None])
