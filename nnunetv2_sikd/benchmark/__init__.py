"""A benchmark of trainers across data sets: described in one file, planned as steps, run here or on a cluster."""
