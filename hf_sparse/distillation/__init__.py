"""From a teacher and texts to a student: the recipe, its stages and the training."""
