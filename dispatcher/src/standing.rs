//! Keeps operators' standing over restarts in `routing.json`: since when they are here, fourteen days of ends, who was refuted.
//! A file that cannot be read costs nobody money: everybody begins anew, and the log says so. Must not: rules.

use crate::clock::now_us;
use crate::gateway::{Shared, until_raised};
use crate::router::OperatorRecord;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often it is written, when it changed.
pub const WRITE_MS: u64 = 10_000;

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("routing.json")
}

/// Takes what the last run left.
pub(crate) fn restore(shared: &Shared) {
    let path = path(&shared.data_dir);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => {
            tracing::error!(target: "standing", path = %path.display(), %error, "not read: every operator begins anew");
            return;
        }
    };
    match serde_json::from_slice::<Vec<OperatorRecord>>(&text) {
        Ok(records) => shared.table().restore(&records, now_us()),
        Err(error) => {
            tracing::error!(target: "standing", path = %path.display(), %error, "not understood: every operator begins anew");
        }
    }
}

/// Writes it as it changes, until the coordinator stops.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    let mut ticks = tokio::time::interval(Duration::from_millis(WRITE_MS));
    let mut written = Vec::new();
    loop {
        tokio::select! {
            () = until_raised(&mut stopping) => return,
            _ = ticks.tick() => {}
        }
        let records = shared.table().records();
        if records == written {
            continue;
        }
        match write(&path(&shared.data_dir), &records) {
            Ok(()) => written = records,
            Err(error) => tracing::warn!(target: "standing", %error, "not written; tried again"),
        }
    }
}

/// Writes it a last time.
pub(crate) fn save(shared: &Shared) {
    let records = shared.table().records();
    if let Err(error) = write(&path(&shared.data_dir), &records) {
        tracing::warn!(target: "standing", %error, "not written: the last seconds are forgotten");
    }
}

/// Whole or not at all: beside, then in place.
fn write(path: &Path, records: &[OperatorRecord]) -> std::io::Result<()> {
    let beside = path.with_extension("unfinished");
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(&serde_json::to_vec(records)?)?;
    file.sync_data()?;
    std::fs::rename(beside, path)
}
