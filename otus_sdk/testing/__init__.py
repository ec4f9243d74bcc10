"""A kit that checks a plugin against the contracts, for the plugin's own tests."""
