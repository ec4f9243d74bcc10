"""What understands a protocol."""
