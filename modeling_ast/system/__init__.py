"""What the kit shares with the machine: files, locks, signals, the terminal, the network, names as text."""
