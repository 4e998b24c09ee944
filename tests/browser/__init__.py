"""A study in MLflow's pages, seen through a browser; run by hand, not with the other tests."""
