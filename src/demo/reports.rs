//! The betting domain's report views, as operators apply them once Walview has made its own.

use anyhow::{Context as _, Result};

use super::servers::clickhouse::ClickHouse;

/// Name of the view, and its statement.
pub const REPORTS: [(&str, &str); 4] = [
    ("settlement_daily", include_str!("../../schemas/clickhouse/betting/settlement_daily.sql")),
    ("settlement_rollup", include_str!("../../schemas/clickhouse/betting/settlement_rollup.sql")),
    ("user_cohorts", include_str!("../../schemas/clickhouse/betting/user_cohorts.sql")),
    ("user_betting", include_str!("../../schemas/clickhouse/betting/user_betting.sql")),
];

/// Makes them, or makes them anew.
pub async fn create_reports(clickhouse: &ClickHouse) -> Result<()> {
    for (name, sql) in REPORTS {
        clickhouse.query(sql).await.with_context(|| format!("cannot make the report {name}"))?;
    }
    Ok(())
}
