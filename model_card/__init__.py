"""The model card and its pictures, rendered from a checkpoint folder and its `run_summary.json` alone."""
