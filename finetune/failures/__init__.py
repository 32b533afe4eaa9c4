"""What may go wrong in a run, in words: bad input, a training that stopped, a folder that is held."""
