"""How good a student is: metrics against gold labels and against the teacher."""
