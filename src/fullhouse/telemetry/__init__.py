"""What the workers tell about themselves, in memory that anyone may read without disturbing them."""
