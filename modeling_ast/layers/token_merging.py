"""Token merging: tokens that are much alike become one between the layers, so that later layers have fewer to compute.

Source: Bolya et al., ICLR 2023, "Token Merging: Your ViT But Faster", without any training; for AST: FastAST, 2024. As there,
tokens are parted alternately into two sets, each of the first is compared with all of the second by the cosine of its
attention keys (their mean over the heads), the closest pairs become their mean weighted by size, attention counts a token as
often as it has patches in it, and the class tokens stay alone. Differs from it in that padding takes no part: a clip merges
what it would merge alone, whatever stands beside it in its batch.
"""

import torch

from .patch_grid import NUM_CLASS_TOKENS

# What adds a number to each score of attention, as sizes have to be.
ATTENTION_WITH_SIZES = ("eager", "sdpa")


class TokenMerging:
    """The tokens of a batch on their way through the layers: how many patches are in each, and where each patch went.

    Args:
        per_layer (`int`): tokens that a layer merges into others; of a clip with fewer, half of its patches.
        real (`torch.Tensor` of shape `(batch, tokens)`, bool, *optional*): which tokens are not padding; all if not given.

    Attributes:
        keys (`torch.Tensor` of shape `(batch, heads, tokens, head_dim)`): of the last attention, which puts them here.
    """

    def __init__(self, per_layer: int, real: torch.Tensor | None = None):
        self.per_layer = per_layer
        self.keys: torch.Tensor | None = None
        self._real = real
        self._sizes: torch.Tensor | None = None  # (batch, tokens)
        self._any_merged = False
        self._places: torch.Tensor | None = None  # (batch, tokens at first), where each is now

    def begin(self, tokens: torch.Tensor) -> torch.Tensor:
        """Put the tokens of each clip before those of its padding, so that they are parted as they would be alone.

        Args:
            tokens (`torch.Tensor` of shape `(batch, tokens, hidden)`): the embeddings.

        Returns:
            `torch.Tensor` of the same shape.
        """
        batch, count, _ = tokens.shape
        self._sizes = tokens.new_ones((batch, count), dtype=torch.float32)
        if self._real is None:
            self._places = torch.arange(count, device=tokens.device).expand(batch, -1)
            return tokens
        order = _first(self._real)
        self._places = order.argsort(dim=1)
        self._real = self._real.gather(1, order)
        return _taken(tokens, order)

    def attention_mask(self, dtype: torch.dtype) -> torch.Tensor | None:
        """Make what is added to the scores of attention: the logarithm of each token's size, and no attention to padding.

        Args:
            dtype (`torch.dtype`): of the scores.

        Returns:
            `torch.Tensor` of shape `(batch, 1, 1, tokens)`; `None` where all tokens count the same.
        """
        if self._real is None and not self._any_merged:
            return None
        added = self._sizes.log().to(dtype)
        if self._real is not None:
            added = added.masked_fill(~self._real, torch.finfo(dtype).min)
        return added[:, None, None]

    def merge(self, tokens: torch.Tensor) -> torch.Tensor:
        """Merge tokens by the keys of the attention before.

        Args:
            tokens (`torch.Tensor` of shape `(batch, tokens, hidden)`): after that attention.

        Returns:
            `torch.Tensor` of shape `(batch, fewer tokens, hidden)`: the class tokens, then those of the first set that are
            left, then those of the second.
        """
        count = min(self.per_layer, (tokens.shape[1] - NUM_CLASS_TOKENS) // 2)
        if count <= 0:
            return tokens
        source, partner, merged = self._pairs(count)
        self._any_merged = True

        sizes = self._sizes.to(tokens.dtype)
        first, second = tokens[:, ::2], tokens[:, 1::2]
        size, other_size = sizes[:, ::2], sizes[:, 1::2]
        moved = size.gather(1, source) * merged  # (batch, count)
        total = other_size.scatter_add(1, partner, moved)
        sums = (second * other_size[:, :, None]).scatter_add(
            1, _along(partner, tokens), _taken(first, source) * moved[:, :, None]
        )
        gone = torch.zeros_like(size, dtype=torch.bool).scatter(1, source, merged)
        real = ~gone, torch.ones_like(other_size, dtype=torch.bool)
        if self._real is not None:
            real = real[0] & self._real[:, ::2], self._real[:, 1::2]

        # A clip has no more tokens left than this; what falls behind is padding.
        alive = _class_tokens_first(*real)
        order = _first(alive)
        kept = order[:, : tokens.shape[1] - count]
        self._follow(order, source, partner, merged)
        self._sizes = _class_tokens_first(size, total).gather(1, kept).float()
        self._real = None if self._real is None else alive.gather(1, kept)
        return _taken(_class_tokens_first(first, sums / total[:, :, None]), kept)

    def spread(self, tokens: torch.Tensor) -> torch.Tensor:
        """Give every token that there was at first what it is part of now.

        Args:
            tokens (`torch.Tensor` of shape `(batch, tokens, hidden)`): after any of the layers.

        Returns:
            `torch.Tensor` of shape `(batch, tokens at first, hidden)`, in the order of the embeddings; numbers without meaning
            for padding.
        """
        return _taken(tokens, self._places)

    def _pairs(self, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Places in the first set, in the second, and whether these two are merged: `(batch, count)` each."""
        keys = self.keys.mean(dim=1).float()  # (batch, tokens, head_dim)
        keys = keys / keys.norm(dim=-1, keepdim=True)
        scores = keys[:, ::2] @ keys[:, 1::2].transpose(1, 2)
        class_tokens = torch.zeros_like(scores, dtype=torch.bool)
        class_tokens[:, 0] = class_tokens[:, :, 0] = True
        scores = scores.masked_fill(class_tokens, -torch.inf)
        if self._real is not None:
            real = self._real[:, ::2, None] & self._real[:, None, 1::2]
            scores = scores.masked_fill(~real, -torch.inf)
        best, partner = scores.max(dim=-1)
        source = best.argsort(dim=1, descending=True, stable=True)[:, :count]
        merged = torch.ones_like(source, dtype=torch.bool)
        if self._real is not None:
            most = (self._real.sum(dim=1, keepdim=True) - NUM_CLASS_TOKENS) // 2
            merged = torch.arange(count, device=source.device) < most
        return source, partner.gather(1, source), merged

    def _follow(self, order: torch.Tensor, source: torch.Tensor, partner: torch.Tensor, merged: torch.Tensor) -> None:
        """Keep in mind where each token went: `order` tells which of both sets stands where."""
        now = order.argsort(dim=1)  # of the class tokens, then the rest of the first set, then that of the second
        half = (order.shape[1] + 1) // 2
        first = torch.cat((now[:, :1], now[:, NUM_CLASS_TOKENS : half + 1]), dim=1)
        second = torch.cat((now[:, 1:NUM_CLASS_TOKENS], now[:, half + 1 :]), dim=1)
        joined = torch.where(merged, second.gather(1, partner), first.gather(1, source))
        first = first.scatter(1, source, joined)
        where = torch.empty_like(order)
        where[:, ::2], where[:, 1::2] = first, second
        last = order.shape[1] - source.shape[1] - 1
        self._places = where.gather(1, self._places).clamp(max=last)


def _class_tokens_first(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The two sets one after the other, their first tokens, the class tokens, before both."""
    return torch.cat((first[:, :1], second[:, :1], first[:, 1:], second[:, 1:]), dim=1)


def _first(chosen: torch.Tensor) -> torch.Tensor:
    """Places of what is chosen, in its order, then those of the rest: `(batch, tokens)`."""
    return (~chosen).to(torch.uint8).argsort(dim=1, stable=True)


def _taken(tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return tokens.gather(1, _along(places, tokens))


def _along(places: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return places[:, :, None].expand(-1, -1, tokens.shape[2])
