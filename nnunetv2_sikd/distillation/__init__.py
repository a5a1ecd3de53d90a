"""What the student learns from its teacher: the loss, and the teacher that fits."""
