"""The one place where the patches of a spectrogram become tokens, and where tokens are put back onto the grid.

A batch's tokens may stand for the whole grid or for a part of it. Masked patches follow SSAST (Gong et al., AAAI 2022): the
mask embedding stands in place of a patch's projection and gets the position of that patch. Dropped patches follow patchout
(Koutini et al., Interspeech 2022): positions are added before patches are dropped, so that those which stay keep theirs.
Which patches these are is drawn by the caller.
"""

from typing import NamedTuple

import torch

from .patch_grid import NUM_CLASS_TOKENS


class PatchLayout(NamedTuple):
    """Which patches of the grid are tokens, in which order, and which of them hold padding.

    Patches are numbered as in the sequence: row by row from the lowest frequency on, time running fastest. The layout is a
    tuple so that its tensors reach the device of the embeddings with the input.

    Args:
        grid (`tuple[int, int]`): patches along frequency and along time of the (padded) input.
        real_time_patches (`torch.Tensor` of shape `(batch,)`, int64, *optional*): time patches of each clip without padding;
            if not given, there is no padding.
        kept (`torch.Tensor` of shape `(batch, kept)`, int64, *optional*): the number of the patch that each token stands for;
            all patches in their order if not given.
        masked (`torch.Tensor` of shape `(batch, patches)`, bool, *optional*): which patches of the whole grid the mask
            embedding stands for; none if not given.
        mask_embedding (`torch.Tensor` of shape `(hidden,)`, *optional*): what stands for them.
    """

    grid: tuple[int, int]
    real_time_patches: torch.Tensor | None = None
    kept: torch.Tensor | None = None
    masked: torch.Tensor | None = None
    mask_embedding: torch.Tensor | None = None

    def to(self, device: torch.device) -> "PatchLayout":
        """Move the tensors.

        Args:
            device (`torch.device`): where the input is.

        Returns:
            [`PatchLayout`] of tensors on that device.
        """
        tensors = (None if tensor is None else tensor.to(device) for tensor in self[1:])
        return PatchLayout(self.grid, *tensors)

    def patch_tokens(self, patches: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Mask patches, add their positions and drop those that are not kept.

        Args:
            patches (`torch.Tensor` of shape `(batch, frequency, time, hidden)`): the projected patches of the whole grid.
            positions (`torch.Tensor` of shape `(1 or batch, frequency, time, hidden)`): theirs.

        Returns:
            `torch.Tensor` of shape `(batch, kept, hidden)`.
        """
        if self.masked is not None:
            masked = self.masked.unflatten(1, self.grid)[..., None]  # (batch, frequency, time, 1)
            patches = torch.where(masked, self.mask_embedding.to(patches.dtype), patches)
        tokens = (patches + positions).flatten(1, 2)  # (batch, patches, hidden)
        if self.kept is None:
            return tokens
        return tokens.gather(1, self.kept[:, :, None].expand(-1, -1, tokens.shape[2]))

    def token_mask(self) -> torch.Tensor | None:
        """Tell the tokens that take part from those of padding.

        Returns:
            `torch.Tensor` of shape `(batch, 2 + kept)`, bool: `True` for class tokens and for patches without padding. `None`
            if there is no padding.
        """
        if self.real_time_patches is None:
            return None
        frequency, time = self.grid
        steps = torch.arange(time, device=self.real_time_patches.device)
        real = steps[None, :] < self.real_time_patches[:, None]  # (batch, time)
        class_tokens = real.new_ones(real.shape[0], NUM_CLASS_TOKENS)
        real = real.repeat(1, frequency)  # (batch, patches)
        if self.kept is not None:
            real = real.gather(1, self.kept)
        return torch.cat((class_tokens, real), dim=1)

    def on_grid(self, of_tokens: torch.Tensor) -> torch.Tensor:
        """Put what was computed of each token back to where its patch lies.

        Args:
            of_tokens (`torch.Tensor` of shape `(batch, 2 + kept, ...)`): numbers, vectors or truth values of the tokens.

        Returns:
            `torch.Tensor` of shape `(batch, frequency, time, ...)`, without the class tokens; 0 or `False` for patches that
            were dropped.
        """
        of_patches = of_tokens[:, NUM_CLASS_TOKENS:]
        if self.kept is not None:
            frequency, time = self.grid
            whole = of_patches.new_zeros(of_patches.shape[0], frequency * time, *of_patches.shape[2:])
            index = self.kept.view(*self.kept.shape, *[1] * (of_patches.dim() - 2)).expand_as(of_patches)
            of_patches = whole.scatter(1, index, of_patches)
        return of_patches.unflatten(1, self.grid)  # (batch, frequency, time, ...)

    def check(self, batch: int, hidden_size: int) -> None:
        """Refuse patches that the grid does not have, and a mask without its embedding.

        The numbers in `kept` are read, for which an accelerator has to be waited for where they lie there; nothing is read
        in a compiled or traced graph.

        Args:
            batch (`int`): clips of the input.
            hidden_size (`int`): width of the tokens.

        Raises:
            TypeError: if one of them is no tensor.
            ValueError: if `kept`, `masked` or `mask_embedding` has another shape or dtype than the class says, `kept` names a
                patch twice or one that is not there, or only one of `masked` and `mask_embedding` is given.
        """
        frequency, time = self.grid
        patches = frequency * time
        named = {"patches_kept": self.kept, "patches_masked": self.masked, "mask_embedding": self.mask_embedding}
        for name, given in named.items():
            if given is not None and not isinstance(given, torch.Tensor):
                raise TypeError(
                    f"{name} is a {type(given).__name__}, expected a torch.Tensor. Pass torch.as_tensor of it."
                )
        if self.kept is not None:
            if self.kept.dtype != torch.int64 or self.kept.dim() != 2 or self.kept.shape[0] != batch:
                raise ValueError(
                    f"patches_kept has shape {tuple(self.kept.shape)} and dtype {self.kept.dtype}, expected ({batch}, kept) and "
                    "torch.int64. Pass the numbers of the patches to keep, as many for each clip."
                )
            if not 1 <= self.kept.shape[1] <= patches:
                raise ValueError(
                    f"patches_kept has {self.kept.shape[1]} patches for each clip, expected 1 to {patches}: {self._size()}. Pass "
                    "each patch at most once."
                )
            self._check_numbers()
        if (self.masked is None) != (self.mask_embedding is None):
            given, missing = "patches_masked", "mask_embedding"
            if self.masked is None:
                given, missing = missing, given
            raise ValueError(f"{given} is given without {missing}. Pass both, or none.")
        if self.masked is None:
            return
        if self.masked.dtype != torch.bool or self.masked.shape != (batch, patches):
            raise ValueError(
                f"patches_masked has shape {tuple(self.masked.shape)} and dtype {self.masked.dtype}, expected "
                f"({batch}, {patches}) and torch.bool: {self._size()}. Pass True for each patch to mask."
            )
        if self.mask_embedding.shape != (hidden_size,):
            raise ValueError(
                f"mask_embedding has shape {tuple(self.mask_embedding.shape)}, expected ({hidden_size},). Pass one vector of the "
                "model's hidden_size."
            )

    def _check_numbers(self) -> None:
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or self.kept.is_meta:
            return
        frequency, time = self.grid
        ordered = self.kept.sort(dim=1).values
        wrong = (ordered < 0) | (ordered >= frequency * time)
        if wrong.any():
            raise ValueError(
                f"patches_kept names patch {ordered[wrong][0].item()}, but {self._size()}. Pass numbers from 0 to "
                f"{frequency * time - 1}."
            )
        twice = ordered[:, 1:] == ordered[:, :-1]
        if twice.any():
            clip, place = twice.nonzero()[0].tolist()
            raise ValueError(
                f"patches_kept names patch {ordered[clip, place].item()} of clip {clip} twice. Pass each patch at most once."
            )

    def _size(self) -> str:
        """The grid in words; made only where it is said, as a compiler would take its numbers for constants."""
        frequency, time = self.grid
        return f"the input has {frequency} x {time} = {frequency * time} patches (frequency x time)"
