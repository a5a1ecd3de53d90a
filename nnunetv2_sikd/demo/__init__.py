"""A demonstration that needs no data of anybody: synthetic images, stock commands, minutes on a CPU."""
