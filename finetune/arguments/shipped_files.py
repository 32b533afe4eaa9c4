"""Recipes and sample data that this package ships."""

from pathlib import Path


def local_or_shipped(name: str) -> Path:
    """Find a recipe or data by its name.

    Args:
        name (`str`): path, perhaps relative to the checkout: `finetune/recipes/drums.yaml`.

    Returns:
        The path as given or, if it is not there, the recipe or sample data of that name that this package ships.
    """
    path = Path(name)
    shipped = Path(__file__).parents[2] / path
    return shipped if path.parts[:1] == ("finetune",) and shipped.exists() and not path.exists() else path
