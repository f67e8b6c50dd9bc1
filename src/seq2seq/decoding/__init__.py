"""From an encoded batch to target ids."""
