//! What ends a speech that the model does not end by itself.
