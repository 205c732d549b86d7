"""Other libraries at the same work, a module each: one that is not installed is left out of the tables."""
