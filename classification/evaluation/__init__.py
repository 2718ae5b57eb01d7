"""How good a trained model is: figures, tables, pictures, `metrics.yaml`."""
