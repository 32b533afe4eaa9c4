"""Whole trainings: one, and one for each fold of a cross-validation."""
