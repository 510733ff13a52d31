//! Names of the metrics, and how a status becomes them.

use super::board::{Status, StoreState};
use metrics::{counter, gauge};

/// Row changes applied.
pub const CHANGES: &str = "walview_changes_total";
/// Records that wait for a store.
pub const WAITING: &str = "walview_store_waiting_records";
/// How far the store is behind what was read of the source, in seconds of its clock.
pub const BEHIND: &str = "walview_store_behind_seconds";
/// 1 where the store takes writes.
pub const STORE_UP: &str = "walview_store_up";
/// Result rows that a refill of the store has written so far; 0 where none runs.
pub const REFILL_ROWS: &str = "walview_store_refill_rows";
/// Times that the store was filled again because it had lost what it had.
pub const REFILLS: &str = "walview_store_refills_total";
/// 1 where the replication connection is up.
pub const SOURCE_UP: &str = "walview_source_up";
/// 1 where the view follows the source.
pub const VIEW_UP: &str = "walview_view_up";
/// Rows left out of a view because it cannot hold them.
pub const DEAD_LETTERS: &str = "walview_view_dead_letters";
/// Facts that a correction of the view in steps has passed so far; 0 where none runs.
pub const CORRECTING: &str = "walview_view_correcting_facts";
/// Bytes of the local store.
pub const LOCAL_BYTES: &str = "walview_local_disk_bytes";

/// Bytes of operations that wait in the outbox, and how many may.
pub const OUTBOX_BYTES: &str = "walview_outbox_bytes";
pub const OUTBOX_BYTES_MAX: &str = "walview_outbox_bytes_max";

/// Sets every metric of a pipeline.
#[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
pub fn publish(status: &Status) {
    let up = |up: bool| if up { 1.0 } else { 0.0 };
    let pipeline = status.pipeline.clone();
    counter!(CHANGES, "pipeline" => pipeline.clone()).absolute(status.changes_total);
    gauge!(SOURCE_UP, "pipeline" => pipeline.clone()).set(up(status.source.connected));
    gauge!(LOCAL_BYTES, "pipeline" => pipeline.clone()).set(status.local.disk_bytes as f64);
    let local = [
        (OUTBOX_BYTES, status.local.outbox_bytes),
        (OUTBOX_BYTES_MAX, status.local.outbox_bytes_max),
    ];
    for (name, bytes) in local {
        gauge!(name, "pipeline" => pipeline.clone()).set(bytes as f64);
    }
    for store in &status.stores {
        let labels = [("pipeline", pipeline.clone()), ("store", store.name.clone())];
        gauge!(STORE_UP, &labels).set(up(store.state == StoreState::Live));
        let refilled = store.refill.as_ref().map_or(0, |refill| refill.rows);
        gauge!(REFILL_ROWS, &labels).set(refilled as f64);
        counter!(REFILLS, &labels).absolute(store.refills);
        gauge!(WAITING, &labels).set(store.waiting as f64);
        gauge!(BEHIND, &labels).set(store.behind_ms as f64 / 1000.0);
    }
    for view in &status.views {
        let labels = [("pipeline", pipeline.clone()), ("view", view.name.clone())];
        gauge!(VIEW_UP, &labels).set(up(view.reason.is_none()));
        gauge!(DEAD_LETTERS, &labels).set(view.dead_letters as f64);
        gauge!(CORRECTING, &labels).set(view.correcting.unwrap_or(0) as f64);
    }
}
