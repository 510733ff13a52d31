//! The environment, read in this one place, and the `${X}` of `source` and `stores`.
//!
//! ```text
//!  file ── parse ──► Setting ── resolve(Environment) ──► Secret
//!          (static)            (only for commands that connect)
//! ```

use std::collections::BTreeMap;

use super::secret::Secret;

/// Where variables come from.
#[derive(Clone, Debug)]
pub enum Environment {
    /// This process.
    Process,
    /// Exactly these: tests and the demo, whose servers get their ports at run time.
    Fixed(BTreeMap<String, Secret>),
}

/// Why a variable has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    NotSet,
    Empty,
    NotUnicode,
}

impl Environment {
    #[must_use]
    pub fn fixed<K: Into<String>, V: Into<String>>(
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let variables = variables.into_iter();
        Self::Fixed(variables.map(|(name, text)| (name.into(), Secret::new(text))).collect())
    }

    /// A variable that is set and not empty.
    ///
    /// # Errors
    /// Why there is none.
    pub fn get(&self, name: &str) -> Result<String, Absent> {
        let value = match self {
            Self::Process => process_variable(name)?,
            Self::Fixed(variables) => {
                variables.get(name).ok_or(Absent::NotSet)?.expose().to_owned()
            }
        };
        if value.is_empty() { Err(Absent::Empty) } else { Ok(value) }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn process_variable(name: &str) -> Result<String, Absent> {
    std::env::var(name).map_err(|error| match error {
        std::env::VarError::NotPresent => Absent::NotSet,
        std::env::VarError::NotUnicode(_) => Absent::NotUnicode,
    })
}

/// A text of `source` or `stores` as written, its variables not yet looked up. Its literal parts may
/// hold a password, so `Debug` shows only the variables.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Variable { name: String, default: Option<String> },
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.variables()).finish()
    }
}

impl Setting {
    /// # Errors
    /// What is wrong with a `${…}`: message and remedy.
    pub fn parse(text: &str) -> Result<Self, (String, String)> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once("${") {
            let Some((inside, tail)) = after.split_once('}') else {
                return Err(("\"${\" has no \"}\"".to_owned(), "write ${NAME}".to_owned()));
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            let (name, default) = match inside.split_once(":-") {
                Some((name, default)) => (name, Some(default.to_owned())),
                None => (inside, None),
            };
            if !is_variable_name(name) {
                return Err((
                    "\"${…}\" does not hold the name of a variable".to_owned(),
                    "write ${NAME} or ${NAME:-default}; names have letters, digits and _"
                        .to_owned(),
                ));
            }
            parts.push(Part::Variable { name: name.to_owned(), default });
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// A text that holds no variable.
    #[must_use]
    pub fn literal(text: impl Into<String>) -> Self {
        Self { parts: vec![Part::Literal(text.into())] }
    }

    /// The text, if it names no variable: what can be checked without an environment.
    #[must_use]
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Variable { name, .. } => Some(name.as_str()),
        })
    }

    /// # Errors
    /// The variables that have neither value nor default.
    pub fn resolve(&self, environment: &Environment) -> Result<Secret, Vec<(String, Absent)>> {
        let mut text = String::new();
        let mut absent = Vec::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Variable { name, default } => match (environment.get(name), default) {
                    (Ok(value), _) => text.push_str(&value),
                    // As in a shell, an empty variable takes the default too.
                    (Err(Absent::NotSet | Absent::Empty), Some(default)) => text.push_str(default),
                    (Err(why), _) => absent.push((name.clone(), why)),
                },
            }
        }
        if absent.is_empty() { Ok(Secret::new(text)) } else { Err(absent) }
    }
}

fn is_variable_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether a text looks as if it expects a variable: `${` and a name.
pub(super) fn mentions_variable(text: &str) -> bool {
    text.split("${")
        .skip(1)
        .any(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn variables_and_defaults() {
        let environment = Environment::fixed([("A", "one"), ("EMPTY", "")]);
        let resolve = |text: &str| {
            let secret = Setting::parse(text).unwrap().resolve(&environment);
            secret.map(|secret| secret.expose().to_owned())
        };
        assert_eq!(resolve("x${A}y${B:-two}"), Ok("xoneytwo".to_owned()));
        assert_eq!(resolve("${EMPTY:-d}$"), Ok("d$".to_owned()));
        assert_eq!(resolve("${B:-}"), Ok(String::new()));
        assert_eq!(
            resolve("${B}${EMPTY}"),
            Err(vec![("B".to_owned(), Absent::NotSet), ("EMPTY".to_owned(), Absent::Empty)])
        );
        for bad in ["${", "${}", "${1A}", "${A-b}", "${ A }"] {
            assert!(Setting::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_is_not_expanded_again() {
        let environment = Environment::fixed([("A", "${B}"), ("B", "no")]);
        let secret = Setting::parse("${A}").unwrap().resolve(&environment).unwrap();
        assert_eq!(secret.expose(), "${B}");
    }

    #[test]
    fn debug_shows_no_literal() {
        let setting = Setting::parse("postgres://u:hunter2@${HOST}/x").unwrap();
        assert_eq!(format!("{setting:?}"), "[\"HOST\"]");
    }
}
