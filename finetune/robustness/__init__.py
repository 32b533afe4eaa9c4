"""What may go wrong in a run, and what is said and saved then."""
