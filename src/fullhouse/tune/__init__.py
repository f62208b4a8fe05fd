"""Finds how much a running site can serve: raises an open-loop load on it in steps, and says what saturates."""
