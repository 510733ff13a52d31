//! Key templates: `bet_count:{status}`.

/// A parsed template. Literals and columns alternate as written; `{{` and `}}` are literal braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Literal(String),
    /// The name of a result column.
    Column(String),
}
