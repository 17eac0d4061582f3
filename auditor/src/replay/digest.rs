//! The digest of a replayed state: SHA-256 over lines of text in a fixed order (`specs/audit.md`, section 5), so that two
//! auditors can compare what they arrived at.

use super::world::World;
use protocol::id::Hash32;
use sha2::{Digest, Sha256};
use std::fmt::Write;

struct Lines {
    hasher: Sha256,
    line: String,
}

impl Lines {
    fn add(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.line.clear();
        let _ = self.line.write_fmt(arguments);
        self.line.push('\n');
        self.hasher.update(self.line.as_bytes());
    }
}

/// Hashes what the world knows of money.
pub(crate) fn digest(world: &World) -> Hash32 {
    let mut lines = Lines { hasher: Sha256::new(), line: String::new() };
    lines.add(format_args!("counterfoil audit state 1"));
    lines.add(format_args!("leaves {}", world.next_leaf()));
    for (number, row) in world.books.rows.iter().enumerate() {
        let (owner, kind, asset) = (row.key.owner, row.key.kind.name(), row.key.asset.0);
        lines.add(format_args!(
            "account {number} {owner} {kind} {asset} {} {} {} {}",
            row.debits, row.credits, row.debits_pending, row.credits_pending
        ));
    }
    for (number, grant) in world.grants.iter().enumerate() {
        let (account, remaining) = (grant.account, grant.remaining);
        lines.add(format_args!("grant {number} {account} {remaining} {} {}", grant.held, grant.reserved));
    }
    for (number, grant) in world.grants.iter().enumerate() {
        let Some(line) = grant.line else { continue };
        lines.add(format_args!("line {number} {} {}", line.limit, line.drawn));
    }
    let mut meters: Vec<_> = world.meters.iter().collect();
    meters.sort_by_key(|(key, _)| **key);
    for (key, meter) in meters {
        let cap = meter.cap.map_or("none".to_owned(), |cap| cap.to_string());
        lines
            .add(format_args!("meter {} {} {} {cap} {}", key.account, key.spender, key.asset.0, meter.spent));
    }
    for ((vault, address), wallet) in &world.wallets {
        lines.add(format_args!(
            "wallet {} {} {address} {} {} {} {}",
            vault.chain_id,
            vault.vault,
            wallet.captured,
            wallet.covered,
            wallet.charged_units,
            wallet.unattributed
        ));
    }
    for ((vault, account), payee) in &world.payees {
        lines.add(format_args!(
            "payee {} {} {account} {} {} {} {}",
            vault.chain_id,
            vault.vault,
            payee.earned,
            payee.closed_units,
            payee.confirmed_units,
            payee.claimed_units
        ));
    }
    let mut open: Vec<_> = world.jobs.iter().filter(|(_, job)| job.is_open).collect();
    open.sort_by_key(|(id, _)| **id);
    for (id, job) in open {
        lines.add(format_args!("open {id} {} {}", job.account, job.held()));
    }
    Hash32(lines.hasher.finalize().into())
}
