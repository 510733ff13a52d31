//! Redis targets: keys, members and stream entries for the rows of a result.

use super::Events;
use super::template::Template;

/// A Redis target as the pipeline file says it, names not yet looked up in the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub template: Template,
    pub shape: SpecShape,
    /// Columns shown, in order; `None` is all.
    pub fields: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpecShape {
    /// One string key per result row. `empty_zero`: a vanished row's counter stays at 0.
    String { value: String, empty_zero: bool },
    Hash,
    /// A plain string holding JSON. `numbers_text`: integers as JSON strings.
    Json { numbers_text: bool },
    Set { member: String },
    ZSet { member: String, score: String },
    /// `maxlen`: `None` does not trim.
    Stream { events: Events, maxlen: Option<u64> },
}
