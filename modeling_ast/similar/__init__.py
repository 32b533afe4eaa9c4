"""Sounds that were embedded and are kept in a folder, and what is searched, sorted and drawn by their vectors."""
