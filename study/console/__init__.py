"""What a user writes at the prompt and reads there."""
