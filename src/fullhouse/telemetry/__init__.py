"""What the workers publish about themselves, in memory that anyone may read without disturbing them."""
