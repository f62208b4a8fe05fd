"""Which requests run, in which order, and which are refused."""
