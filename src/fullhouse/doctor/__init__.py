"""Looks for what will go wrong: in the settings, on the machine, at the databases, at the proxy, in the running "
"site."""
