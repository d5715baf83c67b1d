//! Thin.
