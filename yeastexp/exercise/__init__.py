"""Questions of the exercise sheet that a computation answers, each with a table, a figure and what they say."""
