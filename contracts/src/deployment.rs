//! One network's contracts on one chain, verified: what can be asked of them, and the calls that are sent to them.

use std::sync::Arc;

use alloy::eips::BlockId;
use alloy::primitives::{Address, Bytes, TxKind, U256};
use alloy::providers::DynProvider;
use alloy::sol_types::SolCall;
use serde::{Deserialize, Serialize};

use crate::bindings::anchor::CheckpointAnchor;
use crate::bindings::payouts::OperatorPayouts;
use crate::bindings::token::FoilToken;
use crate::bindings::vault::{CreditVault, ICreditVault};
use crate::chain::{Call, Chain, Head, Mined, mined};
use crate::error::ChainError;
use crate::event::{Record, pack_records};
use crate::fixed_bytes::{Address20, Hash32};
use crate::key::EvmKey;
use crate::manifest::Manifest;
use crate::vouchers::{SignedAuthorisation, VaultDomain};

/// What the vault knows of an account. Amounts in vault units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultAccount {
    /// Units that belong to it.
    pub balance: u64,
    /// Units ever debited.
    pub charged: u64,
    /// The highest `charged` that it has signed for.
    pub cap: u64,
    /// The last time (seconds) of a settlement under the cap.
    pub valid_until: u32,
    /// When a requested exit may be finalized (seconds).
    pub exit_at: Option<u32>,
    /// To be signed into its next authorisation.
    pub authorisation_nonce: u64,
    /// To be signed into its next voucher.
    pub withdrawal_nonce: u64,
}

/// The pot's books. Amounts in vault units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PotState {
    /// Units ever received from the vault.
    pub funded: u64,
    /// Units ever paid out.
    pub claimed_total: u64,
}

/// One operator in the pot's books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorClaims {
    /// Units ever paid for it.
    pub claimed: u64,
    /// Where it is paid: its own address unless it chose another.
    pub payee: Address20,
}

/// A payout root as posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayoutRoot {
    /// The root.
    pub root: Hash32,
    /// The first time (seconds) of a claim against it.
    pub active_at: u64,
    /// True once the guardian has refused it.
    pub disabled: bool,
}

/// What a settlement would do now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettlePreview {
    /// The block in which it was asked.
    pub block: Head,
    /// The epoch that the vault expects next.
    pub epoch: u64,
    /// The units that would be debited in all.
    pub total: u64,
    /// Each record's outcome, in the records' order.
    pub accounts: Vec<PreviewedAccount>,
}

/// What a settlement would do to one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewedAccount {
    /// The account.
    pub account: Address20,
    /// The cumulative charge asked for.
    pub asked: u64,
    /// The cumulative charge before.
    pub charged_before: u64,
    /// The cumulative charge after: less than asked when cap, balance or validity do not cover it.
    pub charged_after: u64,
}

/// Our contracts on a chain, verified against their manifest. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Deployment {
    chain: Chain,
    manifest: Arc<Manifest>,
}

impl Deployment {
    /// Verifies the manifest and opens what it names. There is no way to hold an unverified one.
    pub async fn open(chain: Chain, manifest: Manifest) -> Result<Self, ChainError> {
        manifest.verify(&chain).await?;
        Ok(Self { chain, manifest: Arc::new(manifest) })
    }

    /// The connection.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Where the contracts are.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What is signed off-chain is signed for this vault on this chain.
    pub fn domain(&self) -> VaultDomain {
        VaultDomain { chain_id: self.manifest.chain_id, vault: self.manifest.vault }
    }

    /// What the vault knows of an account now.
    pub async fn account(&self, account: Address20) -> Result<VaultAccount, ChainError> {
        self.account_in(account, BlockId::latest()).await
    }

    /// What the vault knew of an account at a block.
    pub async fn account_at(&self, account: Address20, block: Hash32) -> Result<VaultAccount, ChainError> {
        self.account_in(account, BlockId::hash(block.into())).await
    }

    /// The key that settles and signs vouchers now.
    pub async fn settler(&self) -> Result<Address20, ChainError> {
        let settler = self.vault().settler().call().await;
        settler.map(Address20::from).map_err(|error| self.chain.call_failed("settler", error))
    }

    /// The last settled epoch.
    pub async fn last_epoch(&self) -> Result<u64, ChainError> {
        self.vault().lastEpoch().call().await.map_err(|error| self.chain.call_failed("lastEpoch", error))
    }

    /// The pot's books now.
    pub async fn pot(&self) -> Result<PotState, ChainError> {
        let failed = |error| self.chain.call_failed("reading the pot", error);
        Ok(PotState {
            funded: narrow(self.payouts().funded().call().await.map_err(failed)?),
            claimed_total: narrow(self.payouts().claimedTotal().call().await.map_err(failed)?),
        })
    }

    /// One operator in the pot's books now.
    pub async fn operator_claims(&self, operator: Address20) -> Result<OperatorClaims, ChainError> {
        let failed = |error| self.chain.call_failed("reading an operator's claims", error);
        let claimed = self.payouts().claimedOf(operator.into()).call().await.map_err(failed)?;
        let payee = self.payouts().payeeOf(operator.into()).call().await.map_err(failed)?;
        let payee = if payee == Address::ZERO { operator } else { payee.into() };
        Ok(OperatorClaims { claimed: claimed.saturating_to(), payee })
    }

    /// The payout root of an epoch; `None` when it posted none.
    pub async fn payout_root(&self, epoch: u64) -> Result<Option<PayoutRoot>, ChainError> {
        let posted = self.payouts().rootOf(epoch).call().await;
        let posted = posted.map_err(|error| self.chain.call_failed("rootOf", error))?;
        let active_at = posted.activeAt.to::<u64>();
        let root = PayoutRoot { root: posted.root.into(), active_at, disabled: posted.disabled };
        Ok((active_at != 0).then_some(root))
    }

    /// The last anchored size and root of a publisher's log.
    pub async fn anchored(
        &self,
        publisher: Address20,
        origin: Hash32,
    ) -> Result<Option<(u64, Hash32)>, ChainError> {
        let anchor = CheckpointAnchor::new(self.manifest.anchor.into(), self.chain.provider());
        let head = anchor.headOf(publisher.into(), origin.into()).call().await;
        let head = head.map_err(|error| self.chain.call_failed("headOf", error))?;
        Ok((head.size != 0).then(|| (head.size, head.root.into())))
    }

    /// An account's tokens outside the vault, in token base units.
    pub async fn token_balance(&self, account: Address20) -> Result<u128, ChainError> {
        let token = FoilToken::new(self.manifest.token.into(), self.chain.provider());
        let balance = token.balanceOf(account.into()).call().await;
        balance
            .map(|amount| amount.saturating_to())
            .map_err(|error| self.chain.call_failed("balanceOf", error))
    }

    /// What a settlement of these records would do in the newest block. Records must name each account once.
    pub async fn preview_settle(&self, records: &[Record]) -> Result<SettlePreview, ChainError> {
        let block = self.chain.head().await?;
        let at = BlockId::hash(block.hash.into());
        let preview = self.vault().previewSettle(pack_records(records).into()).block(at).call().await;
        let preview = preview.map_err(|error| self.chain.call_failed("previewSettle", error))?;
        let last = self.vault().lastEpoch().block(at).call().await;
        let last = last.map_err(|error| self.chain.call_failed("lastEpoch", error))?;
        let outcomes = preview.charged.iter().zip(&preview.debits);
        let one = |(record, (charged, debit)): (&Record, (&u64, &u64))| PreviewedAccount {
            account: record.account,
            asked: record.cumulative_units,
            charged_before: charged - debit,
            charged_after: *charged,
        };
        let accounts: Vec<PreviewedAccount> = records.iter().zip(outcomes).map(one).collect();
        let total = preview.debits.iter().sum();
        Ok(SettlePreview { block, epoch: last + 1, total, accounts })
    }

    /// Records signed caps; anybody's key may send them.
    pub async fn authorise(&self, key: &EvmKey, signed: &[SignedAuthorisation]) -> Result<Mined, ChainError> {
        let authorisations = signed.iter().map(ICreditVault::SpendAuthorisation::from).collect();
        self.send(key, "authorise", self.manifest.vault, CreditVault::authoriseCall { authorisations }).await
    }

    /// Appoints a settler; the coordinator's key.
    pub async fn appoint_settler(&self, key: &EvmKey, settler: Address20) -> Result<Mined, ChainError> {
        let call = CreditVault::setSettlerCall { newSettler: settler.into() };
        self.send(key, "setSettler", self.manifest.vault, call).await
    }

    /// Allows the vault to take `units` of the key's tokens.
    pub async fn approve(&self, key: &EvmKey, units: u64) -> Result<Mined, ChainError> {
        let call =
            FoilToken::approveCall { spender: self.manifest.vault.into(), value: self.base_units(units) };
        self.send(key, "approve", self.manifest.token, call).await
    }

    /// Deposits `units` of the key's approved tokens for an account.
    pub async fn deposit(&self, key: &EvmKey, account: Address20, units: u64) -> Result<Mined, ChainError> {
        let call = CreditVault::depositCall { account: account.into(), amount: self.base_units(units) };
        self.send(key, "deposit", self.manifest.vault, call).await
    }

    /// Withdraws with a voucher; the account's key.
    pub async fn withdraw(
        &self,
        key: &EvmKey,
        to: Address20,
        voucher: &crate::vouchers::SignedVoucher,
    ) -> Result<Mined, ChainError> {
        self.send(key, "withdraw", self.manifest.vault, voucher.call(to)).await
    }

    /// Claims an operator's cumulative earnings against an epoch's root; anybody's key may send it.
    pub async fn claim(&self, key: &EvmKey, claim: &Claim) -> Result<Mined, ChainError> {
        self.send(key, "claim", self.manifest.payouts, claim.call()).await
    }

    /// Chooses where the key's operator is paid.
    pub async fn set_payee(&self, key: &EvmKey, payee: Address20) -> Result<Mined, ChainError> {
        let call = OperatorPayouts::setPayeeCall { payee: payee.into() };
        self.send(key, "setPayee", self.manifest.payouts, call).await
    }

    /// Refuses an epoch's payout root before it becomes active; the guardian's key.
    pub async fn disable_root(&self, key: &EvmKey, epoch: u64) -> Result<Mined, ChainError> {
        self.send(key, "disableRoot", self.manifest.payouts, OperatorPayouts::disableRootCall { epoch }).await
    }

    /// Anchors a head of the key's transparency log.
    pub async fn anchor(
        &self,
        key: &EvmKey,
        origin: Hash32,
        size: u64,
        root: Hash32,
    ) -> Result<Mined, ChainError> {
        let call = CheckpointAnchor::anchorCall { origin: origin.into(), size, root: root.into() };
        self.send(key, "anchor", self.manifest.anchor, call).await
    }

    pub(crate) fn vault(&self) -> CreditVault::CreditVaultInstance<DynProvider> {
        CreditVault::new(self.manifest.vault.into(), self.chain.provider().clone())
    }

    pub(crate) fn payouts(&self) -> OperatorPayouts::OperatorPayoutsInstance<DynProvider> {
        OperatorPayouts::new(self.manifest.payouts.into(), self.chain.provider().clone())
    }

    pub(crate) fn base_units(&self, units: u64) -> U256 {
        U256::from(units) * U256::from(self.manifest.unit_base_units())
    }

    pub(crate) async fn send(
        &self,
        key: &EvmKey,
        name: &'static str,
        to: Address20,
        call: impl SolCall,
    ) -> Result<Mined, ChainError> {
        let call = Call { name, to: TxKind::Call(to.into()), input: Bytes::from(call.abi_encode()) };
        mined(name, &self.chain.send(key, call).await?)
    }

    async fn account_in(&self, account: Address20, block: BlockId) -> Result<VaultAccount, ChainError> {
        read_account(&self.chain, self.manifest.vault, account, block).await
    }
}

/// An operator's claim against an epoch's payout root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The settlement epoch whose root is used.
    pub epoch: u64,
    /// The operator.
    pub operator: Address20,
    /// Its cumulative earnings in that root.
    pub cumulative_units: u64,
    /// From its leaf to the root.
    pub proof: Vec<Hash32>,
}

impl Claim {
    pub(crate) fn call(&self) -> OperatorPayouts::claimCall {
        OperatorPayouts::claimCall {
            epoch: self.epoch,
            operator: self.operator.into(),
            cumulative: U256::from(self.cumulative_units),
            proof: self.proof.iter().map(|hash| (*hash).into()).collect(),
        }
    }
}

pub(crate) async fn read_account(
    chain: &Chain,
    vault: Address20,
    account: Address20,
    block: BlockId,
) -> Result<VaultAccount, ChainError> {
    let failed = |error| chain.call_failed("reading an account", error);
    let vault = CreditVault::new(vault.into(), chain.provider());
    let found = vault.accountOf(account.into()).block(block).call().await.map_err(failed)?;
    let nonces = vault.noncesOf(account.into()).block(block).call().await.map_err(failed)?;
    Ok(VaultAccount {
        balance: found.balance,
        charged: found.charged,
        cap: found.cap,
        valid_until: found.validUntil,
        exit_at: (found.exitAt != 0).then_some(found.exitAt),
        authorisation_nonce: nonces.authorisation,
        withdrawal_nonce: nonces.withdrawal,
    })
}

/// The vault's figures are u64; the pot's sums of them cannot exceed it in practice, and saturate if they do.
pub(crate) fn narrow(units: u128) -> u64 {
    u64::try_from(units).unwrap_or(u64::MAX)
}
