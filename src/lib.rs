//! Walview.
