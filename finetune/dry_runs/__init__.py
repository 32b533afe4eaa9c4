"""What `--dry_run` finds out and says, without any training."""
