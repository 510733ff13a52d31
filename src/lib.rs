//! Walview.

pub mod source;
