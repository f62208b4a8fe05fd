"""The pool of connections: driver-blind, one per process and alias. `core` says how it works."""
