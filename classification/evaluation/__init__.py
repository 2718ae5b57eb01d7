"""How good a trained model is: figures, tables, images, `metrics.yaml`."""
