"""The budget of a host: how many database sessions all of its processes together may hold."""
