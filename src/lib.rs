//! Walview.
pub mod stores;
