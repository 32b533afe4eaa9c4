"""Original AST checkpoints to Hub checkpoints and back, verified: nothing is imported until it is used."""
