"""Turns a study's records in MLflow into tables, figures and one report."""
