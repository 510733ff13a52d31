//! Places where a test lets the process die: at every edge of a commit.
//!
//! `hit` marks a place. In debug builds the environment says what it does (see the constants below):
//! nothing, write the place down, or end the process at the n-th hit as a power cut would, with no
//! destructor run. In release builds it is an empty function and none of this is compiled.
//! tests/fail_points.rs counts the hits of each place, then dies at them one by one.

/// In the engine's loop.
pub const HAND_OVER_BEFORE: &str = "hand_over.before";
pub const HAND_OVER_AFTER: &str = "hand_over.after";
pub const COMMIT_BEFORE: &str = "commit.before";
pub const COMMIT_AFTER: &str = "commit.after";
pub const PRUNE_AFTER: &str = "prune.after";
pub const CUT_BEFORE: &str = "cut.before";
pub const CUT_AFTER: &str = "cut.after";
pub const WRITE_AHEAD_AFTER: &str = "write_ahead.after";
/// An order is durable, and no store has seen it.
pub const ORDER_DURABLE: &str = "order.durable";
/// Between the local commit and PostgreSQL.
pub const CONFIRM_BEFORE: &str = "confirm.before";
pub const CONFIRM_AFTER: &str = "confirm.after";
/// While an added column is taken in, in this order: before and after the commit that does it, and
/// once a ClickHouse table has the column.
pub const FOLLOW_BEFORE: &str = "follow.before";
pub const FOLLOW_AFTER: &str = "follow.after";
pub const FOLLOW_ALTERED: &str = "follow.altered";
/// In a store's writer.
pub const APPLY_BEFORE: &str = "apply.before";
/// The store has the batch, nobody here knows it yet.
pub const APPLY_AFTER: &str = "apply.after";
pub const APPLIED: &str = "applied";
/// Rows are in one table of several, or in all; the mark is not there yet.
pub const CLICKHOUSE_TABLE: &str = "clickhouse.table";
pub const CLICKHOUSE_ROWS: &str = "clickhouse.rows";
/// While a store is filled again, in this order; the second at each page.
pub const REFILL_BEGUN: &str = "refill.begun";
pub const REFILL_PAGE: &str = "refill.page";
pub const REFILL_FILLED: &str = "refill.filled";
pub const REFILL_MARK_SET: &str = "refill.mark_set";
/// In the first snapshot, in this order.
pub const SNAPSHOT_BEGUN: &str = "snapshot.begun";
pub const SNAPSHOT_STORES_RESET: &str = "snapshot.stores_reset";
pub const SNAPSHOT_SLOT_MADE: &str = "snapshot.slot_made";
pub const SNAPSHOT_TABLE_COPIED: &str = "snapshot.table_copied";
pub const SNAPSHOT_COPIED: &str = "snapshot.copied";
pub const SNAPSHOT_PART_LOADED: &str = "snapshot.part_loaded";
pub const SNAPSHOT_FILLED: &str = "snapshot.filled";
pub const SNAPSHOT_MARK_SET: &str = "snapshot.mark_set";
pub const SNAPSHOT_COMMITTED: &str = "snapshot.committed";
pub const SNAPSHOT_LIVE: &str = "snapshot.live";

/// Places that are passed again and again while changes stream.
pub const STREAMING: [&str; 15] = [
    HAND_OVER_BEFORE,
    HAND_OVER_AFTER,
    COMMIT_BEFORE,
    COMMIT_AFTER,
    PRUNE_AFTER,
    CUT_BEFORE,
    CUT_AFTER,
    WRITE_AHEAD_AFTER,
    CONFIRM_BEFORE,
    CONFIRM_AFTER,
    APPLY_BEFORE,
    APPLY_AFTER,
    APPLIED,
    CLICKHOUSE_TABLE,
    CLICKHOUSE_ROWS,
];

/// Places where an added column is taken in.
pub const FOLLOW: [&str; 3] = [FOLLOW_BEFORE, FOLLOW_AFTER, FOLLOW_ALTERED];

/// Places of a refill.
pub const REFILL: [&str; 4] = [REFILL_BEGUN, REFILL_PAGE, REFILL_FILLED, REFILL_MARK_SET];

/// Places of the first snapshot.
pub const SNAPSHOT: [&str; 10] = [
    SNAPSHOT_BEGUN,
    SNAPSHOT_STORES_RESET,
    SNAPSHOT_SLOT_MADE,
    SNAPSHOT_TABLE_COPIED,
    SNAPSHOT_COPIED,
    SNAPSHOT_PART_LOADED,
    SNAPSHOT_FILLED,
    SNAPSHOT_MARK_SET,
    SNAPSHOT_COMMITTED,
    SNAPSHOT_LIVE,
];

/// `place:n` ends the process at the n-th hit of the place.
#[cfg(debug_assertions)]
pub const DIE_VARIABLE: &str = "WALVIEW_FAIL_POINT";
/// A file to which each hit's place is appended.
#[cfg(debug_assertions)]
pub const LOG_VARIABLE: &str = "WALVIEW_FAIL_POINT_LOG";

/// Marks a place.
#[cfg(not(debug_assertions))]
#[inline]
pub fn hit(_place: &'static str) {}

/// Marks a place.
#[cfg(debug_assertions)]
pub fn hit(place: &'static str) {
    use std::sync::LazyLock;
    static PLAN: LazyLock<Plan> = LazyLock::new(Plan::from_environment);
    PLAN.hit(place);
}

#[cfg(debug_assertions)]
struct Plan {
    die: Option<(String, u64)>,
    hits: std::sync::atomic::AtomicU64,
    log: Option<std::fs::File>,
}

#[cfg(debug_assertions)]
impl Plan {
    #[expect(clippy::expect_used, reason = "a test that is not understood must not pass")]
    fn from_environment() -> Self {
        let environment = crate::config::Environment::Process;
        let die = environment.get(DIE_VARIABLE).ok().map(|text| {
            let parsed =
                text.split_once(':').and_then(|(p, n)| Some((p.to_owned(), n.parse().ok()?)));
            parsed.expect("WALVIEW_FAIL_POINT is place:number")
        });
        let log = environment.get(LOG_VARIABLE).ok().map(|path| {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            file.expect("WALVIEW_FAIL_POINT_LOG is a file that can be written")
        });
        Self { die, hits: 0.into(), log }
    }

    fn hit(&self, place: &'static str) {
        use std::io::Write as _;
        use std::sync::atomic::Ordering;
        if let Some(mut log) = self.log.as_ref() {
            // One write, so that threads do not mix.
            log.write_all(format!("{place}\n").as_bytes()).ok();
        }
        if let Some((wanted, at)) = &self.die
            && wanted == place
            && self.hits.fetch_add(1, Ordering::SeqCst) + 1 == *at
        {
            std::process::abort();
        }
    }
}
