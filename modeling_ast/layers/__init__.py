"""Parts of the transformer that stand by themselves: the patch grid and its positions, linear layers, recomputation."""
