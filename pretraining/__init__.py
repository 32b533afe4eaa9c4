"""The data that the shipped small checkpoint is pretrained on: fetched, cut, synthesised and told of by one command."""
