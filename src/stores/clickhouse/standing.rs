//! What stands where a target's rows go: nothing, a table of ours, or one of the user's.
//!
//! ```text
//!  system.tables, DESCRIBE ─► look ─► Standing ─► begin, rebuild: adopt its types, or refuse
//!                                              └► verify, plan: read only
//!  system.tables at each write ─► check ─► a Fault, where somebody altered or emptied a table
//! ```
//!
//! What walview made, or took over, says so in its comment; everything else is the user's. Only an
//! empty table that fits is taken over, and from then on it is emptied, never dropped.

use super::super::{Fault, StoreError};
use super::error::{Exception, store_error};
use super::{ClickHouse, Config, STATEMENT_TIMEOUT, TextRow};
use walview_core::target::clickhouse::{
    Misfit, Table, TableColumn, Target, literal, quote, rows_database,
};

/// The comments of what is walview's start so.
pub(super) const OWN: &str = "walview ";
/// Stands in the comment of a table that was the user's own, after the owner and before what the
/// user had written there.
const ADOPTED: &str = "adopted";

/// What stands where a target's rows go.
#[derive(Debug)]
pub enum Standing {
    /// Nothing: walview makes the table.
    Absent,
    /// Walview made it.
    Own,
    /// The user made it, it fits, and it is walview's already or can be: the target with its types.
    Adopted(Box<Target>),
    /// It does not fit, or must not be touched.
    Refused(Vec<Misfit>),
}

/// What stands under one name.
pub(super) enum Found {
    Nothing,
    /// Of the same pipeline and view, with this comment.
    Own(String),
    /// Walview's, for another pipeline or view: its owner.
    Other(String),
    /// The user's: its engine and comment.
    Foreign {
        engine: String,
        comment: String,
    },
}

/// Whose something is: pipeline and view are named before the schema.
fn owner(comment: &str) -> &str {
    comment.split(" schema ").next().unwrap_or(comment)
}

pub(super) fn is_adopted(comment: &str) -> bool {
    comment.split(" schema ").nth(1).is_some_and(|rest| rest.starts_with(ADOPTED))
}

/// The comment of an adopted table. What the user had written there stays.
pub(super) fn adopted_comment(owner: &str, users: &str) -> String {
    let users = if users.is_empty() { String::new() } else { format!("; {users}") };
    format!("{owner} schema {ADOPTED}{users}")
}

/// What stands where a target's rows go. Reads only.
///
/// # Errors
/// The server cannot be asked.
pub async fn look(config: &Config, target: &Target) -> Result<Standing, StoreError> {
    ClickHouse::new(config.clone(), Vec::new()).standing(target).await
}

impl ClickHouse {
    /// Who owns a target's tables.
    pub(super) fn owner(&self, target: &Target) -> String {
        format!("{OWN}pipeline \"{}\" view \"{}\"", self.config.identity.pipeline, target.view())
    }

    pub(super) async fn find_name(
        &self,
        database: &str,
        name: &str,
        owned_by: &str,
    ) -> Result<Found, StoreError> {
        let rows = self
            .rows(&format!(
                "SELECT engine, comment FROM system.tables WHERE database = {} AND name = {}",
                literal(database),
                literal(name)
            ))
            .await?;
        let Some(row) = rows.into_iter().next() else {
            return Ok(Found::Nothing);
        };
        let [engine, comment] = texts(row);
        Ok(if owner(&comment) == owned_by {
            Found::Own(comment)
        } else if comment.starts_with(OWN) {
            Found::Other(owner(&comment).to_owned())
        } else {
            Found::Foreign { engine, comment }
        })
    }

    pub(super) async fn standing(&self, target: &Target) -> Result<Standing, StoreError> {
        let database = &self.config.database;
        let rows = rows_database(database);
        let owned_by = self.owner(target);
        let mut misfits = Vec::new();
        let view = self.find_name(database, target.table(), &owned_by).await?;
        let found = self.find_name(&rows, target.table(), &owned_by).await?;
        match view {
            Found::Nothing | Found::Own(_) => {}
            Found::Other(other) => misfits.push(others(&target.view_name(database), &other)),
            Found::Foreign { engine, .. } => {
                let movable = matches!(found, Found::Nothing) && engine.ends_with("MergeTree");
                misfits.push(misplaced(target, database, &engine, movable));
                if movable {
                    // What else would be wrong once it stands in its place.
                    let shape = self.table(database, target.table()).await?;
                    misfits.extend(target.adopt(&shape).err().unwrap_or_default());
                    misfits.extend(self.holds_rows(&target.view_name(database)).await?);
                }
            }
        }
        let adopted = match found {
            Found::Nothing => None,
            Found::Own(comment) if !is_adopted(&comment) => {
                return Ok(refused_or(misfits, Standing::Own));
            }
            Found::Other(other) => {
                misfits.push(others(&target.rows_name(database), &other));
                None
            }
            Found::Own(_) | Found::Foreign { .. } => {
                if let Found::Foreign { .. } = found {
                    misfits.extend(self.holds_rows(&target.rows_name(database)).await?);
                }
                match target.adopt(&self.table(&rows, target.table()).await?) {
                    Ok(adopted) => Some(adopted),
                    Err(list) => {
                        misfits.extend(list);
                        None
                    }
                }
            }
        };
        let standing = match adopted {
            Some(adopted) => Standing::Adopted(Box::new(adopted)),
            None => Standing::Absent,
        };
        Ok(refused_or(misfits, standing))
    }

    /// Only an empty table is taken over: the user's rows are not walview's to judge or to remove.
    async fn holds_rows(&self, name: &str) -> Result<Option<Misfit>, StoreError> {
        let some = !self.rows(&format!("SELECT '' FROM {name} LIMIT 1")).await?.is_empty();
        Ok(some.then(|| {
            Misfit::new(
                "it holds rows that Walview did not write",
                format!("keep it under another name (RENAME TABLE {name} TO …), or TRUNCATE TABLE {name}"),
            )
        }))
    }

    /// Whether a target's table is as its rows are encoded.
    pub(super) async fn fits(&self, target: &Target) -> Result<bool, StoreError> {
        let rows = rows_database(&self.config.database);
        Ok(target.misfits(&self.table(&rows, target.table()).await?).is_empty())
    }

    async fn table(&self, database: &str, name: &str) -> Result<Table, StoreError> {
        let rows = self
            .rows(&format!(
                "SELECT engine, engine_full, sorting_key, partition_key, create_table_query \
                 FROM system.tables WHERE database = {} AND name = {}",
                literal(database),
                literal(name)
            ))
            .await?;
        let [engine, engine_full, sorting_key, partition_key, create_query] =
            texts(rows.into_iter().next().unwrap_or_default());
        let columns = self
            .rows(&format!("DESCRIBE TABLE {}.{}", quote(database), quote(name)))
            .await?
            .into_iter()
            .map(|row| {
                let [name, ty, default_kind, _default, _comment, codec, ttl] = texts(row);
                TableColumn { name, ty, default_kind, codec, ttl }
            })
            .collect();
        let name = format!("{}.{}", quote(database), quote(name));
        Ok(Table { name, engine, engine_full, sorting_key, partition_key, create_query, columns })
    }

    /// Whether the server knows no such table. A server that starts lists its tables bit by bit.
    async fn is_gone(&self, target: &Target) -> Result<bool, StoreError> {
        let name = target.rows_name(&self.config.database);
        let query = self.client.query_raw(&format!("SELECT '' FROM {name} LIMIT 0"));
        match tokio::time::timeout(STATEMENT_TIMEOUT, query.execute()).await {
            Ok(Ok(())) => Ok(false),
            Ok(Err(error)) => match Exception::of(&error) {
                // UNKNOWN_TABLE, UNKNOWN_DATABASE
                Some(Exception { code: 60 | 81, .. }) => Ok(true),
                Some(_) | None => Err(store_error(error)),
            },
            Err(_) => Err(StoreError::retry("ClickHouse did not answer in time")),
        }
    }

    /// Faults of targets whose table somebody altered, dropped or emptied. A table's columns are
    /// looked at again only where its DDL differs from the one that passed.
    pub(super) async fn check(&mut self) -> Result<Vec<Fault>, StoreError> {
        let rows_in = rows_database(&self.config.database);
        let names: Vec<String> =
            self.targets.iter().map(|target| literal(target.table())).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let found: Vec<[String; 4]> = self
            .rows(&format!(
                "SELECT name, create_table_query, comment, toString(total_rows) \
                 FROM system.tables WHERE database = {} AND name IN ({})",
                literal(&rows_in),
                names.join(", ")
            ))
            .await?
            .into_iter()
            .map(texts)
            .collect();
        let (mut faults, mut passed, mut counted) = (Vec::new(), Vec::new(), Vec::new());
        let database = &self.config.database;
        for (index, target) in (0_u16..).zip(&self.targets) {
            if self.stopped.contains(&index) {
                continue;
            }
            let found = found.iter().find(|[name, ..]| name == target.table());
            let [query, rows] = found.map_or([""; 2], |[_, query, _, rows]| [query, rows]);
            let name = target.rows_name(database);
            if found.is_none() || self.passed.get(&index).is_none_or(|passed| passed != query) {
                let misfits = match found {
                    None if self.is_gone(target).await? => {
                        faults.push(lost(index, format!("the table {name} is gone")));
                        continue;
                    }
                    None => {
                        return Err(StoreError::retry(
                            "ClickHouse does not list a table that it has",
                        ));
                    }
                    Some([_, _, comment, _]) if owner(comment) != self.owner(target) => {
                        vec![Misfit::new(
                            "its comment is not Walview's: it was made anew, or released",
                            "",
                        )]
                    }
                    Some(_) => target.misfits(&self.table(&rows_in, target.table()).await?),
                };
                if !misfits.is_empty() {
                    faults.push(altered(index, &name, &misfits));
                    continue;
                }
                passed.push((index, query.to_owned()));
            }
            if rows != "0" {
                counted.extend((!rows.is_empty()).then_some(index));
            } else if self.filled.contains(&index)
                && !empties_itself(query)
                // Asked once more: a server that starts counts what it has loaded.
                && self.holds_rows(&name).await?.is_none()
            {
                faults.push(lost(index, format!("the table {name} was emptied by somebody")));
            }
        }
        self.passed.extend(passed);
        self.filled.extend(counted);
        Ok(faults)
    }
}

fn refused_or(misfits: Vec<Misfit>, standing: Standing) -> Standing {
    if misfits.is_empty() { standing } else { Standing::Refused(misfits) }
}

fn altered(index: u16, name: &str, misfits: &[Misfit]) -> Fault {
    let causes: Vec<&str> = misfits.iter().map(|misfit| misfit.cause.as_str()).collect();
    Fault {
        target: index,
        message: format!("the table {name} was altered: {}", causes.join("; ")),
        remedy: "make it fit, or undo that, then: walview rebuild".to_owned(),
    }
}

/// Whether merges may forget all rows of a table: then an empty one tells nothing. Those of any other
/// keep the last version of each row, be it a deleted one. (A TTL that deletes does not fit.)
fn empties_itself(create_query: &str) -> bool {
    ["with_cleanup", "clean_deleted_rows"].iter().any(|setting| create_query.contains(setting))
}

fn lost(target: u16, message: String) -> Fault {
    Fault { target, message, remedy: "fill it again with: walview rebuild".to_owned() }
}

fn others(name: &str, owner: &str) -> Misfit {
    let owner = owner.strip_prefix(OWN).unwrap_or(owner);
    Misfit::new(
        format!("{name} belongs to another view ({owner})"),
        "choose another table name, or drop the other where it is not used any more",
    )
}

/// The name that readers use is taken.
fn misplaced(target: &Target, database: &str, engine: &str, movable: bool) -> Misfit {
    let (view, rows) = (target.view_name(database), target.rows_name(database));
    if !movable {
        return Misfit::new(
            format!("{view} is a {engine} that Walview did not make"),
            "choose another table name; Walview does not touch this one",
        );
    }
    Misfit::new(
        format!(
            "{view} is a table ({engine}), and this name is the exact view's: who reads a \
             ReplacingMergeTree itself sees old versions of rows"
        ),
        format!(
            "make it the table of rows behind the view: CREATE DATABASE IF NOT EXISTS {}; \
             RENAME TABLE {view} TO {rows}",
            quote(&rows_database(database))
        ),
    )
}

/// The first columns of a row; what is missing is empty.
pub(super) fn texts<const N: usize>(row: TextRow) -> [String; N] {
    let mut row = row.into_iter();
    std::array::from_fn(|_| row.next().flatten().unwrap_or_default())
}
