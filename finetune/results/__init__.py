"""What a run leaves behind: its folder, scores, summary, pictures, card, and what is pushed."""
