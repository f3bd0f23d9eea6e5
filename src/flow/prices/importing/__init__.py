"""Price books from the world: one module a format, all to the same rows; what does not fit is named with its reason."""
