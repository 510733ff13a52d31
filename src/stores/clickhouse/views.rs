//! The views that readers query, kept as this version makes them.
//!
//! ```text
//!  connect ──────────────────────────► walview_freshness ─┐  made where it is not there,
//!  first write of each connection ───► the exact views  ──┴─ replaced where another version made it
//! ```
//!
//! Not all at `connect`: a rebuild connects, too, and its new views do not fit the old rows.
//! A view is replaced in one step, so a reader always finds one.

use super::super::StoreError;
use super::ClickHouse;
use super::tables::hash;
use std::collections::HashMap;
use walview_core::position::Lsn;
use walview_core::target::clickhouse::{Target, literal, quote};

const FRESHNESS: &str = "walview_freshness";
const FRESHNESS_OWNER: &str = "walview freshness";

/// What readers may ask of a view. No time is true of one that is loading or stopped, and none is
/// known in the moment between the end of loading and the first word from the source (the mark
/// holds the epoch then).
fn freshness(name: &str, marks: &str, security: &str, comment: &str) -> String {
    format!(
        "CREATE OR REPLACE VIEW {name} (\
         `pipeline` String COMMENT 'Name of the pipeline', \
         `view` String COMMENT 'Name of the view in the pipeline file', \
         `as_of` Nullable(DateTime64(6, 'UTC')) COMMENT 'Time at the source: what was committed by \
         then is there; NULL while the view is loading or stopped', \
         `lsn` String COMMENT 'Position in the log of the source up to which the store is written', \
         `lag` Nullable(Decimal(18, 3)) COMMENT 'Seconds since as_of by the clock of this server', \
         `state` String COMMENT 'live; loading: a part is there; stopped: walview status says why'\
         ){security} AS SELECT pipeline, view, \
         if(state = 'live' AND marks.as_of > toDateTime64('2000-01-01 00:00:00', 6, 'UTC'), \
         marks.as_of, NULL) AS as_of, lsn, \
         CAST(dateDiff('millisecond', as_of, now64(6, 'UTC')) AS Nullable(Decimal(18, 3))) / 1000 \
         AS lag, \
         multiIf(mark LIKE '% loading %', 'loading', has(stopped, view), 'stopped', 'live') AS state \
         FROM {marks} AS marks FINAL ARRAY JOIN arrayDistinct(views) AS view COMMENT {}",
        literal(comment)
    )
}

impl ClickHouse {
    pub(super) async fn create_freshness(&self) -> Result<(), StoreError> {
        let database = &self.config.database;
        let name = format!("{}.{}", quote(database), quote(FRESHNESS));
        let marks = self.marks_table();
        let schema = hash(&freshness(&name, &marks, "", ""));
        let comment = format!("{FRESHNESS_OWNER} schema {schema:016x}");
        match self.comments(database, &[FRESHNESS]).await?.get(FRESHNESS) {
            Some(found) if *found == comment => return Ok(()),
            Some(found) if owner(found) != FRESHNESS_OWNER => {
                return Err(StoreError::stop(
                    format!(
                        "ClickHouse has a \"{database}\".\"{FRESHNESS}\" that walview did not make"
                    ),
                    "rename it: names that begin with \"walview_\" are walview's own",
                ));
            }
            Some(_) | None => {}
        }
        self.create_view(|security| freshness(&name, &marks, security, &comment)).await
    }

    /// Once in a connection: exact views that are gone, or that another version made, are made as
    /// this one does. A stranger's of that name is left alone. `holds`: how far the store has come,
    /// where more waits for it; a view shows an added column once its values are there.
    pub(super) async fn renew_views(&mut self, holds: Option<Lsn>) -> Result<(), StoreError> {
        let early = |target: &Target| holds.is_some_and(|holds| holds < target.widened_at());
        if self.views_renewed || self.targets.iter().any(early) {
            return Ok(());
        }
        let database = &self.config.database;
        let names: Vec<&str> = self.targets.iter().map(Target::table).collect();
        let found = self.comments(database, &names).await?;
        let running = (0_u16..).zip(&self.targets).filter(|(at, _)| !self.stopped.contains(at));
        for (_, target) in running {
            let comment = self.comment(target);
            let keep = found
                .get(target.table())
                .is_some_and(|found| *found == comment || owner(found) != owner(&comment));
            if !keep {
                tracing::info!(view = target.table(), "the exact view is made anew");
                self.create_exact_view(target, &comment).await?;
            }
        }
        self.views_renewed = true;
        Ok(())
    }

    pub(super) async fn create_exact_view(
        &self,
        target: &Target,
        comment: &str,
    ) -> Result<(), StoreError> {
        let database = &self.config.database;
        self.create_view(|security| target.create_view(database, comment, !security.is_empty()))
            .await
    }

    /// The comments of those of these names that are there.
    async fn comments(
        &self,
        database: &str,
        names: &[&str],
    ) -> Result<HashMap<String, String>, StoreError> {
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
        let sql = format!(
            "SELECT name, comment FROM system.tables WHERE database = {} AND name IN ({})",
            literal(database),
            names.join(", ")
        );
        let rows = self.rows(&sql).await?.into_iter();
        Ok(rows
            .filter_map(|row| {
                let mut row = row.into_iter().map(Option::unwrap_or_default);
                Some((row.next()?, row.next()?))
            })
            .collect())
    }
}

/// Whose something is: that stands before the schema.
fn owner(comment: &str) -> &str {
    comment.split(" schema ").next().unwrap_or(comment)
}
