"""Where clips come from: folders, tables, the Hub and Python objects, read into splits with labels."""
