"""STUN for Otus, and one plugin of each other kind: an example package."""
