"""What searches cost on recorded curves, through us and through Optuna itself."""
