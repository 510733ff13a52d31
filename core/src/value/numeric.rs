//! Exact decimal arithmetic with PostgreSQL's display scales.

/// Placeholder of the interface; see the module's plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Numeric;
