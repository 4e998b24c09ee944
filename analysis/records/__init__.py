"""Records of studies: from MLflow, to Parquet, and back."""
