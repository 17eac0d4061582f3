//! What the load examples send: credit moves between the buckets of many accounts, and what must stand in the log before
//! (`COUNTERFOIL_LOAD=opens`: new accounts).

use journal::SubmitError;
use ledger::Command;
use ledger::command::{IssueGrant, MoveCredit, OpenAccount};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::grant::{Backing, GrantSource};
use protocol::event::{Actor, GrantId};
use protocol::id::{AccountId, IdempotencyKey};

/// Buckets, one an account; grant ids are 0 and up.
pub const ACCOUNTS: u32 = 10_000;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

fn account(number: u32) -> AccountId {
    let mut id = [7; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    AccountId(id)
}

/// Opens the accounts and fills their buckets.
pub fn set_up() -> Vec<Command> {
    let command = |number: u64, body: ledger::CommandBody| {
        Command::new(IdempotencyKey::internal("load", &[&number.to_be_bytes()]), Actor::Admin, body)
    };
    let mut commands = Vec::new();
    for number in 0..ACCOUNTS {
        let key = 2 * u64::from(number);
        commands.push(command(key, OpenAccount { account: account(number) }.into()));
        let grant = IssueGrant {
            account: account(number),
            source: GrantSource::Package,
            asset: AssetId(0),
            amount: Amount(10i128.pow(18)),
            priority: 5,
            scope: Vec::new(),
            expires_us: None,
            backing: Backing::Unbacked,
        };
        commands.push(command(key + 1, grant.into()));
    }
    commands
}

/// Commands of one client.
pub struct Moves {
    random: u64,
    /// `COUNTERFOIL_LOAD=opens`: accounts are opened instead, the cheapest command that writes.
    opens: bool,
}

impl Moves {
    pub fn new(seed: u64) -> Self {
        let opens = std::env::var("COUNTERFOIL_LOAD").is_ok_and(|load| load == "opens");
        Self { random: seed.wrapping_mul(0xD6E8_FEB8_6659_FD93), opens }
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn next(&mut self) -> Command {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.random().to_be_bytes());
        key[8..].copy_from_slice(&self.random().to_be_bytes());
        if self.opens {
            let body = OpenAccount { account: AccountId(key) };
            return Command::new(IdempotencyKey(key), Actor::Admin, body);
        }
        let from = (self.random() % u64::from(ACCOUNTS)) as u32;
        let to = (from + 1 + (self.random() % u64::from(ACCOUNTS - 1)) as u32) % ACCOUNTS;
        let amount = Amount(1 + (self.random() % 1_000) as i128);
        let body = MoveCredit { from: GrantId(from), to: GrantId(to), amount };
        Command::new(IdempotencyKey(key), Actor::Admin, body)
    }
}

/// Every one must have been done.
pub fn all_done<T>(results: Vec<Result<T, SubmitError>>) -> Result<u64, SubmitError> {
    let count = results.len() as u64;
    results.into_iter().try_for_each(|result| result.map(drop)).map(|()| count)
}

/// The figure below which so much of the sorted list lies.
pub fn quantile(sorted: &[u32], q: f64) -> u32 {
    sorted.get(((sorted.len().max(1) - 1) as f64 * q) as usize).copied().unwrap_or(0)
}
