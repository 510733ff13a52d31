//! The databases, tables and views that walview makes, and its marks.
//!
//! What walview made says so in its comment; anything else of that name is the user's and is never
//! touched.

use super::super::{MarkText, StoreError};
use super::{ClickHouse, arrow::unix_micros};
use walview_core::position::Lsn;
use walview_core::target::clickhouse::{Target, literal, quote, rows_database};

/// The comments of what walview made start so.
const OWN: &str = "walview ";

/// Where a table or a view of a name stands.
pub(super) enum Found {
    Nothing,
    /// Ours, with this comment.
    Own(String),
}

impl ClickHouse {
    pub(super) fn marks_table(&self) -> String {
        format!("{}.`walview_marks`", quote(&rows_database(&self.config.database)))
    }

    pub(super) async fn create_databases(&self) -> Result<(), StoreError> {
        let database = &self.config.database;
        for name in [database.clone(), rows_database(database)] {
            let known = self
                .rows(&format!("SELECT name FROM system.databases WHERE name = {}", literal(&name)))
                .await?;
            if known.is_empty() {
                self.run(&format!("CREATE DATABASE IF NOT EXISTS {}", quote(&name))).await?;
            }
        }
        self.create_marks().await
    }

    async fn create_marks(&self) -> Result<(), StoreError> {
        let database = self.config.database.clone();
        if let Found::Nothing =
            self.find(&rows_database(&database), "walview_marks", "walview marks").await?
        {
            // Without a version column the row inserted last wins, which is the writer's order.
            self.run(&format!(
                "CREATE TABLE IF NOT EXISTS {} (pipeline String, mark String, \
                 as_of DateTime64(6, 'UTC'), lsn String, views Array(String), \
                 stopped Array(String)) ENGINE = ReplacingMergeTree ORDER BY pipeline \
                 COMMENT 'walview marks'",
                self.marks_table()
            ))
            .await?;
        }
        if let Found::Nothing =
            self.find(&database, "walview_freshness", "walview freshness").await?
        {
            let view = |security: &str| {
                format!(
                    "CREATE OR REPLACE VIEW {}.`walview_freshness`{security} AS SELECT pipeline, \
                     view, as_of, lsn, dateDiff('millisecond', as_of, now64(6, 'UTC')) / 1000 AS lag, \
                     multiIf(mark LIKE '% loading %', 'loading', has(stopped, view), 'stopped', \
                     'live') AS state FROM {} FINAL ARRAY JOIN views AS view \
                     COMMENT 'walview freshness'",
                    quote(&database),
                    self.marks_table()
                )
            };
            self.create_view(view).await?;
        }
        Ok(())
    }

    /// Tries with `SQL SECURITY DEFINER`, by which readers need no rights on the rows.
    async fn create_view(&self, sql: impl Fn(&str) -> String) -> Result<(), StoreError> {
        match self.run(&sql(" DEFINER = CURRENT_USER SQL SECURITY DEFINER")).await {
            Err(StoreError::Stop { .. }) => self.run(&sql("")).await,
            done => done,
        }
    }

    /// What stands under a name; a stranger's is refused.
    pub(super) async fn find(
        &self,
        database: &str,
        name: &str,
        comment: &str,
    ) -> Result<Found, StoreError> {
        let rows = self
            .rows(&format!(
                "SELECT comment FROM system.tables WHERE database = {} AND name = {}",
                literal(database),
                literal(name)
            ))
            .await?;
        let Some(row) = rows.into_iter().next() else {
            return Ok(Found::Nothing);
        };
        let found = row.into_iter().next().flatten().unwrap_or_default();
        // Pipeline and view are named before the schema.
        let owner = comment.split(" schema ").next().unwrap_or(comment);
        let found_owner = found.split(" schema ").next().unwrap_or(&found);
        if found_owner == owner {
            Ok(Found::Own(found))
        } else if found.starts_with(OWN) {
            Err(StoreError::stop(
                format!(
                    "ClickHouse's \"{database}\".\"{name}\" belongs to another view ({found_owner})"
                ),
                "choose another table name, or drop the other where it is not used any more",
            ))
        } else {
            Err(StoreError::stop(
                format!("ClickHouse has a \"{database}\".\"{name}\" that walview did not make"),
                "choose another table name; walview does not touch this one",
            ))
        }
    }

    /// Whose a target's table and view are, and of which columns.
    pub(super) fn comment(&self, target: &Target) -> String {
        format!(
            "{OWN}pipeline \"{}\" view \"{}\" schema {:016x}",
            self.config.identity.pipeline,
            target.view(),
            hash(&target.create_rows(&self.config.database, "")),
        )
    }

    /// Makes the rows table and the exact view of a target, empty.
    pub(super) async fn reset_target(&self, target: &Target) -> Result<(), StoreError> {
        let database = &self.config.database;
        let comment = self.comment(target);
        let rows = rows_database(database);
        // Both are looked at before either is touched.
        let view = self.find(database, target.table(), &comment).await?;
        match self.find(&rows, target.table(), &comment).await? {
            Found::Own(found) if found == comment => {
                self.run(&format!("TRUNCATE TABLE {}", target.rows_name(database))).await?;
            }
            Found::Own(_) => {
                self.run(&format!("DROP TABLE {} SYNC", target.rows_name(database))).await?;
                self.run(&target.create_rows(database, &comment)).await?;
            }
            Found::Nothing => self.run(&target.create_rows(database, &comment)).await?,
        }
        match view {
            Found::Own(found) if found == comment => Ok(()),
            Found::Own(_) | Found::Nothing => {
                self.create_view(|security| {
                    target.create_view(database, &comment, !security.is_empty())
                })
                .await
            }
        }
    }

    pub(super) async fn read_mark(&self) -> Result<Option<MarkText>, StoreError> {
        let rows = self
            .rows(&format!(
                "SELECT mark FROM {} FINAL WHERE pipeline = {}",
                self.marks_table(),
                literal(&self.config.identity.pipeline)
            ))
            .await?;
        match rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()) {
            Some(text) => Ok(Some(text.parse()?)),
            None => Ok(None),
        }
    }

    /// `as_of` in microseconds since 2000.
    pub(super) async fn write_mark(
        &self,
        mark: &MarkText,
        as_of: i64,
        lsn: Lsn,
    ) -> Result<(), StoreError> {
        let names = |keep: &dyn Fn(u16) -> bool| {
            let names: Vec<String> = (0_u16..)
                .zip(&self.targets)
                .filter(|(index, _)| keep(*index))
                .map(|(_, target)| literal(target.view()))
                .collect();
            format!("[{}]", names.join(", "))
        };
        self.run(&format!(
            "INSERT INTO {} (pipeline, mark, as_of, lsn, views, stopped) VALUES ({}, {}, \
             fromUnixTimestamp64Micro({}), {}, {}, {})",
            self.marks_table(),
            literal(&self.config.identity.pipeline),
            literal(&mark.to_string()),
            unix_micros(as_of),
            literal(&lsn.to_string()),
            names(&|_| true),
            names(&|index| self.stopped.contains(&index)),
        ))
        .await
    }
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}
