"""Files for the programs around the server, written from its settings and its plan."""
