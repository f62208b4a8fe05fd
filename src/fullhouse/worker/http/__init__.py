"""HTTP/1.1 as a server reads it, without I/O. Imports nothing else of the worker."""
