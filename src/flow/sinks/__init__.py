"""The way out: blocks are cut with each epoch, frozen by its commit, and published once."""
