//! Random checkpoints in the published layout, from a seed.
