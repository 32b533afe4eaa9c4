"""What a run leaves behind: its folder, progress, summary, pictures, card."""
