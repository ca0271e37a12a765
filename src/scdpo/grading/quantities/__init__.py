"""Numbers with their units, and when two of them are equal."""
