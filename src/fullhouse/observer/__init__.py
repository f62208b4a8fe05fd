"""Looks at a running site from outside: for `/metrics`, the live page and `fullhouse top`. Nothing waits for it."""
