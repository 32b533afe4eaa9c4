"""What a user may say of a run: groups of fields, the command line and the recipe, and what contradicts what."""
