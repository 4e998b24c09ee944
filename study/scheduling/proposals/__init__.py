"""Where trials come from: a grid, a grid tuned before, or Optuna."""
