"""The plan: what the machine and the databases carry, and the arithmetic that follows."""
