"""Questions of the exercise sheet that a computation answers with a table, plots and sentences."""
