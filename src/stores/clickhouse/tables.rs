//! The databases, tables and views that walview makes, and its marks.
//!
//! What walview made says so in its comment, and what it took over of the user's (`standing`);
//! anything else of that name is never touched.

use super::super::{MarkText, StoreError};
use super::standing::{Found, Standing, adopted_comment, is_adopted};
use super::{ClickHouse, arrow::unix_micros};
use crate::fail_point;
use walview_core::position::Lsn;
use walview_core::target::clickhouse::{Misfit, Target, literal, quote, rows_database};

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
        if self.is_free(&rows_database(&database), "walview_marks", "walview marks").await? {
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
        self.create_freshness().await
    }

    /// Tries with `SQL SECURITY DEFINER`, by which readers need no rights on the rows.
    pub(super) async fn create_view(&self, sql: impl Fn(&str) -> String) -> Result<(), StoreError> {
        match self.run(&sql(" DEFINER = CURRENT_USER SQL SECURITY DEFINER")).await {
            Err(StoreError::Stop { .. }) => {
                self.run(&sql("")).await?;
                tracing::warn!(
                    database = self.config.database,
                    "ClickHouse refused SQL SECURITY DEFINER: readers of a view need SELECT on the \
                     rows behind it, too"
                );
                Ok(())
            }
            done => done,
        }
    }

    /// Whether a name of walview's own is to be made; a stranger's is refused.
    async fn is_free(&self, database: &str, name: &str, comment: &str) -> Result<bool, StoreError> {
        match self.find_name(database, name, comment).await? {
            Found::Nothing => Ok(true),
            Found::Own(_) => Ok(false),
            Found::Other(_) | Found::Foreign { .. } => Err(StoreError::stop(
                format!("ClickHouse has a \"{database}\".\"{name}\" that walview did not make"),
                "rename it: names that begin with \"walview_\" are walview's own",
            )),
        }
    }

    /// Whose a target's table and view are, and as which version of walview declares them.
    pub(super) fn comment(&self, target: &Target) -> String {
        let schema = hash(&target.schema(&self.config.database));
        format!("{} schema {schema:016x}", self.owner(target))
    }

    /// Makes the rows table and the exact view of a target, empty; a table of the user's own is
    /// taken over.
    pub(super) async fn reset_target(&self, target: &Target) -> Result<(), StoreError> {
        let database = &self.config.database;
        // Everything is looked at before anything is touched.
        match self.standing(target).await? {
            Standing::Absent | Standing::Own => {}
            Standing::Adopted(adopted) if adopted.fingerprint() == target.fingerprint() => {}
            Standing::Adopted(_) => {
                let misfit = Misfit::new("it was altered a moment ago", "start again");
                return Err(refused(target, database, &[misfit]));
            }
            Standing::Refused(misfits) => return Err(refused(target, database, &misfits)),
        }
        let owner = self.owner(target);
        let comment = self.comment(target);
        let name = target.rows_name(database);
        match self.find_name(&rows_database(database), target.table(), &owner).await? {
            Found::Own(found) if is_adopted(&found) => self.empty(&name).await?,
            // One that somebody altered since is made anew.
            Found::Own(found) if found == comment && self.fits(target).await? => {
                self.empty(&name).await?;
            }
            Found::Own(_) => {
                self.run(&format!("DROP TABLE {name} SYNC")).await?;
                self.run(&target.create_rows(database, &comment)).await?;
            }
            // It fits and is empty.
            Found::Foreign { comment: users, .. } => {
                let comment = literal(&adopted_comment(&owner, &users));
                self.run(&format!("ALTER TABLE {name} MODIFY COMMENT {comment}")).await?;
            }
            Found::Nothing | Found::Other(_) => {
                self.run(&target.create_rows(database, &comment)).await?;
            }
        }
        match self.find_name(database, target.table(), &owner).await? {
            Found::Own(found) if found == comment => Ok(()),
            Found::Own(_) | Found::Nothing | Found::Other(_) | Found::Foreign { .. } => {
                self.create_exact_view(target, &comment).await
            }
        }
    }

    /// Gives tables of ours the columns that were added since they were made. A crash in between
    /// leaves the comment, so it is done again; a column that is gone after that was dropped by
    /// somebody.
    pub(super) async fn widen_tables(&self) -> Result<(), StoreError> {
        let database = &self.config.database;
        for target in &self.targets {
            let Some(oldest) = target.earlier().first() else {
                continue;
            };
            let (owner, comment) = (self.owner(target), self.comment(target));
            let found = self.find_name(&rows_database(database), target.table(), &owner).await?;
            let Found::Own(found) = found else {
                continue;
            };
            if found == comment || is_adopted(&found) {
                continue;
            }
            let is_at = |earlier: &&Target| self.comment(earlier) == found;
            let earlier = target.earlier().iter().find(is_at).unwrap_or(oldest);
            self.run(&target.add_columns(earlier, database)).await?;
            fail_point::hit(fail_point::FOLLOW_ALTERED);
            let name = target.rows_name(database);
            self.run(&format!("ALTER TABLE {name} MODIFY COMMENT {}", literal(&comment))).await?;
            tracing::info!(table = target.table(), "the table has the columns that were added");
        }
        Ok(())
    }

    async fn empty(&self, name: &str) -> Result<(), StoreError> {
        self.run(&format!("TRUNCATE TABLE {name}")).await
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
        let sql = format!(
            "INSERT INTO {} (pipeline, mark, as_of, lsn, views, stopped) VALUES ({}, {}, \
             fromUnixTimestamp64Micro({}), {}, {}, {})",
            self.marks_table(),
            literal(&self.config.identity.pipeline),
            literal(&mark.to_string()),
            unix_micros(as_of),
            literal(&lsn.to_string()),
            names(&|_| true),
            names(&|index| self.stopped.contains(&index)),
        );
        match self.run(&sql).await {
            Err(StoreError::Stop { .. }) if self.marks_are_gone().await? => Err(StoreError::stop(
                format!("the table {} is gone, and walview's mark with it", self.marks_table()),
                "fill the store again with: walview rebuild",
            )),
            written => written,
        }
    }

    async fn marks_are_gone(&self) -> Result<bool, StoreError> {
        let rows = rows_database(&self.config.database);
        let found = self.find_name(&rows, "walview_marks", "walview marks").await?;
        Ok(matches!(found, Found::Nothing))
    }
}

fn refused(target: &Target, database: &str, misfits: &[Misfit]) -> StoreError {
    let texts: Vec<String> =
        misfits.iter().map(|misfit| format!("{}; {}", misfit.cause, misfit.remedy)).collect();
    StoreError::stop(
        format!("the table {} does not fit", target.rows_name(database)),
        texts.join("; "),
    )
}

/// FNV-1a.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}
