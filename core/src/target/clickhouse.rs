//! `ClickHouse` targets: versioned rows behind an exact view.

/// A `ClickHouse` target as the pipeline file says it, names not yet looked up in the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The name of the exact view.
    pub table: String,
    /// Sorting key: result columns.
    pub order_by: Vec<String>,
    /// A `ClickHouse` expression over `order_by` columns.
    pub partition_by: Option<String>,
    /// Column to `ClickHouse` type, where the default is not wanted.
    pub types: Vec<(String, String)>,
    /// Columns shown, in order; `None` is all.
    pub fields: Option<Vec<String>>,
}
