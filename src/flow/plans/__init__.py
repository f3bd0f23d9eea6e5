"""Plans: from the usage of a period to its charge, exactly. Pure functions: no store, no file, no clock."""
