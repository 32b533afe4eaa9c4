"""A package, so that it comes before the one of this name that dcase_util's wheel installs beside its own."""
