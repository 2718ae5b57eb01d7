"""Making a trained model smaller: int8, zeros."""
