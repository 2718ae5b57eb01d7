"""Looking a data set over before anything is trained on it, and cleaning a copy of it."""
