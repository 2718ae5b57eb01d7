"""Many trainings as one study: templates x data sets x seeds x variants, and their tables."""
