"""nnU-Net trainers: teacher, student, and their variants by name."""
