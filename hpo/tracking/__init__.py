"""MLflow's runs, and TensorBoard's event files."""
