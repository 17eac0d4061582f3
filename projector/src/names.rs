//! What ledger accounts and assets are called in texts and files, and figures in an asset's own decimals.

use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId};
use protocol::event::LedgerAccount;
use protocol::event::account::OpenedLedgerAccount;
use protocol::id::AccountId;

/// Whoever knows the log's assets and ledger accounts: the books in memory, or the index on disk.
pub trait Names {
    /// One asset.
    fn asset(&self, id: AssetId) -> Option<Asset>;

    /// One ledger account.
    fn ledger_account(&self, number: LedgerAccount) -> Option<OpenedLedgerAccount>;

    /// The unambiguous name of a ledger account in files: `kind:ASSET` for the platform's, `kind:ASSET:acct_..` else.
    fn name(&self, number: LedgerAccount) -> String {
        let Some(account) = self.ledger_account(number) else { return format!("unknown:{}", number.0) };
        let symbol = self.asset(account.asset).map_or_else(|| "?".to_owned(), |a| a.symbol);
        let kind = account.kind.name();
        match account.owner {
            AccountId::SYSTEM => format!("{kind}:{symbol}"),
            owner => format!("{kind}:{symbol}:{owner}"),
        }
    }

    /// `0.00568 FOIL`; base units when the asset is unknown.
    fn money(&self, asset: AssetId, amount: Amount) -> String {
        match self.asset(asset) {
            Some(asset) => format!("{} {}", amount.to_decimal_string(asset.ledger_scale), asset.symbol),
            None => format!("{} base units", amount.0),
        }
    }

    /// The same of a ledger account's asset.
    fn money_of(&self, account: LedgerAccount, amount: Amount) -> String {
        match self.ledger_account(account) {
            Some(account) => self.money(account.asset, amount),
            None => format!("{} base units", amount.0),
        }
    }
}
