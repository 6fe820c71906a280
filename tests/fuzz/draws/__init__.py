"""How arguments are drawn that make sense, and definitions in NumPy that no reference kernel has."""
