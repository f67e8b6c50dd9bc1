"""What the scripts do, a function each."""
