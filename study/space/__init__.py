"""Search spaces: from YAML to typed trials."""
