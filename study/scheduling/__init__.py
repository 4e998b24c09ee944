"""What runs next, and what stops early."""
