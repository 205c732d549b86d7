"""Trials of one experiment with other values of its keys, proposed by Optuna and shared by any number of processes."""
