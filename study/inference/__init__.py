"""What trained models predict."""
