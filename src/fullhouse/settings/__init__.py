"""The options: one table, how each value is read, and the command line made of it."""
