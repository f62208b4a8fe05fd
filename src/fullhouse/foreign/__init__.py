"""Configurations of other servers: what becomes of each line under fullhouse. Nothing is changed by them."""
