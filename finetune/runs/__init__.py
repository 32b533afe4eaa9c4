"""A whole run from arguments to a finished folder: one training, or one for every fold."""
