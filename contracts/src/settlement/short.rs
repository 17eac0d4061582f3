//! Which wallets the vault would charge short now: by their cap, its end, or what lies there. They are left out of a batch,
//! so that one wallet never stops the settlement of all others; what they owe stays their own debt (rulings 3.4).

use journal::LedgerClient;
use protocol::asset::{VAULT_SCALE, VaultRef};
use protocol::id::EvmAddress;

use crate::deployment::Deployment;
use crate::error::ChainError;
use crate::event::Record;
use crate::fixed_bytes::Address20;
use crate::mirror::{evm, not_taken};

/// Records in one question to the chain.
const ASKED_AT_ONCE_MAX: usize = 1_000;

/// Asks the chain what it would charge each wallet that owes something.
pub(super) async fn short_wallets(
    client: &LedgerClient,
    deployment: &Deployment,
    vault: VaultRef,
) -> Result<Vec<EvmAddress>, ChainError> {
    let owing = client.read(move |state| {
        let registered = ledger::query::vaults(state).into_iter().find(|known| known.vault == vault);
        let asset = registered.and_then(|known| ledger::query::assets(state).get(known.asset.0 as usize));
        let digits = asset.and_then(|asset| asset.ledger_scale.checked_sub(VAULT_SCALE));
        let unit = digits.and_then(|digits| 10i128.checked_pow(u32::from(digits))).unwrap_or(1);
        let record = |wallet: ledger::query::WalletView| {
            let cumulative_units = u64::try_from(wallet.captured.0 / unit).ok()?;
            let account = Address20(wallet.wallet.0);
            (cumulative_units > wallet.charged_units).then_some(Record { account, cumulative_units })
        };
        ledger::query::wallets(state, vault).into_iter().filter_map(record).collect::<Vec<Record>>()
    });
    let mut short = Vec::new();
    for records in owing.await.map_err(not_taken)?.chunks(ASKED_AT_ONCE_MAX) {
        let preview = deployment.preview_settle(records).await?;
        let clamped = preview.accounts.iter().filter(|account| account.charged_after < account.asked);
        short.extend(clamped.map(|account| evm(account.account)));
    }
    Ok(short)
}
