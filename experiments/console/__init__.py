"""How a binary starts, shows its progress, and ends in one line when something goes wrong."""
