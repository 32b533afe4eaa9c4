"""Steps and epochs: the trainer, losses, schedules, adapters, averages, and what a checkpoint folder holds."""
