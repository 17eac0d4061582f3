//! Recovery codes: what signs a person in who has no wallet. 120 random bits as 24 characters that cannot be mistaken for
//! each other, shown once, kept as a keyed hash. Must not: know what an account has.

use super::{AccessError, Store, Table, peek, put, put_record, random_16, take};
use data_encoding::{Encoding, Specification};
use protocol::id::AccountId;
use redb::TableDefinition;
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// Hash of the code -> [`RecoveryRecord`].
const CODES: Table = TableDefinition::new("recovery_codes");
/// Account -> hash of its code.
const OF_ACCOUNT: Table = TableDefinition::new("recovery_of_account");
/// What was given to new people so far, base units as text.
const WELCOMES: Table = TableDefinition::new("welcomes");
const GIVEN: &[u8] = b"given";
/// Random bytes of a code.
const CODE_BYTES: usize = 15;
/// Characters of a code, without the hyphens between its groups.
pub const CODE_CHARS: usize = 24;

/// Letters and digits without I, O, 0 and 1.
static ALPHABET: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("ABCDEFGHJKLMNPQRSTUVWXYZ23456789");
    spec.encoding().expect("a constant alphabet of 32 symbols is valid")
});

/// A code as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecoveryRecord {
    /// Whose.
    pub account: AccountId,
    /// Microseconds UTC.
    pub created_us: u64,
}

/// What people type: any case, spaces and hyphens wherever they like; `None` when it cannot be a code.
pub fn parse_code(text: &str) -> Option<String> {
    let letters: String =
        text.chars().filter(|c| !c.is_whitespace() && *c != '-').flat_map(char::to_uppercase).collect();
    let fits = letters.len() == CODE_CHARS && ALPHABET.decode(letters.as_bytes()).is_ok();
    fits.then_some(letters)
}

/// In groups of four, as it is shown.
fn shown(letters: &str) -> String {
    let groups: Vec<&str> =
        letters.as_bytes().chunks(4).filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join("-")
}

impl Store {
    /// Makes the account's code, in place of an earlier one, and returns it, the only time it is seen.
    pub async fn create_recovery_code(&self, account: AccountId, now_us: u64) -> Result<String, AccessError> {
        let random = [random_16()?, random_16()?].concat();
        let letters = ALPHABET.encode(&random[..CODE_BYTES]);
        let key = self.hash_secret(&letters);
        let record = RecoveryRecord { account, created_us: now_us };
        self.write(move |transaction| {
            if let Some(earlier) = peek(transaction, OF_ACCOUNT, &account.0)? {
                take(transaction, CODES, &earlier)?;
            }
            put(transaction, OF_ACCOUNT, &account.0, &key)?;
            put_record(transaction, CODES, &key, &record)
        })
        .await?;
        Ok(shown(&letters))
    }

    /// Whose code this is. Found by its keyed hash, so that timing says nothing about it.
    pub fn account_of_code(&self, text: &str) -> Result<Option<AccountId>, AccessError> {
        let Some(letters) = parse_code(text) else { return Ok(None) };
        let record: Option<RecoveryRecord> = self.record(CODES, &self.hash_secret(&letters))?;
        Ok(record.map(|record| record.account))
    }

    /// Takes `amount` from what may be given to new people, `budget` for the life of this gateway's store; `false` when
    /// less is left.
    pub async fn take_welcome(&self, amount: i128, budget: i128) -> Result<bool, AccessError> {
        self.write(move |transaction| {
            let given = peek(transaction, WELCOMES, GIVEN)?;
            let given = given.map_or(Ok(0), |bytes| read_given(&bytes))?;
            let after = given.saturating_add(amount);
            if after > budget {
                return Ok(false);
            }
            put(transaction, WELCOMES, GIVEN, after.to_string().as_bytes())?;
            Ok(true)
        })
        .await
    }

    /// What was given to new people so far, base units.
    pub fn welcomes_given(&self) -> Result<i128, AccessError> {
        self.bytes(WELCOMES, GIVEN)?.map_or(Ok(0), |bytes| read_given(&bytes))
    }
}

fn read_given(bytes: &[u8]) -> Result<i128, AccessError> {
    let text = std::str::from_utf8(bytes).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| AccessError::store("what new people were given is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_code_opens_its_account_however_it_is_typed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let account = AccountId([7; 16]);
        let code = store.create_recovery_code(account, 1).await.unwrap();
        assert_eq!(code.len(), CODE_CHARS + 5, "six groups of four");
        let typed = format!(" {} ", code.to_lowercase().replace('-', " "));
        assert_eq!(store.account_of_code(&typed).unwrap(), Some(account));
        for wrong in ["", "AAAA", "0000-0000-0000-0000-0000-0000", "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA"] {
            assert_eq!(store.account_of_code(wrong).unwrap(), None, "{wrong}");
        }
        let newer = store.create_recovery_code(account, 2).await.unwrap();
        assert_eq!(store.account_of_code(&code).unwrap(), None, "a new code ends the old one");
        assert_eq!(store.account_of_code(&newer).unwrap(), Some(account));
    }

    #[tokio::test]
    async fn welcomes_end_with_their_budget() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(store.take_welcome(40, 100).await.unwrap());
        assert!(store.take_welcome(60, 100).await.unwrap());
        assert!(!store.take_welcome(1, 100).await.unwrap());
        assert_eq!(store.welcomes_given().unwrap(), 100);
    }
}
