//! Commands: what somebody asks the ledger to do. Ids are the caller's, so that a repeated command is the same command.
//! Time is not a field: the writer brings it. Must not: rules (they stand with their feature).

mod economy;

pub use economy::*;

use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::{AssetId, VaultRef};
use protocol::event::account::SpendAuthorised;
use protocol::event::batch::{BatchReplaced, BatchSubmitted, Rail};
use protocol::event::chain::{CheckpointAnchored, DepositKey, ExitCancelled, ExitRequested, VaultRegistered};
use protocol::event::economy::{EconomyPublished, FallbackMarked, TreasuryEpochPaid, UptimeNoted};
use protocol::event::grant::{Backing, GrantSource};
use protocol::event::hold::VoidReason;
use protocol::event::job::{CapturePart, Outcome};
use protocol::event::node::{NodeRegistered, OperatorRegistered};
use protocol::event::policy::NetworkOpened;
use protocol::event::{Actor, GrantId};
use protocol::id::{
    AccountId, BatchId, EvmAddress, Hash32, HoldId, IdempotencyKey, JobId, NodeId, SpenderId, VoucherId,
    Word32,
};
use protocol::rate::RateCard;

/// One request to the ledger.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Command {
    /// Same key and same body: the first outcome again. Same key, other body: refused.
    #[n(0)]
    pub key: IdempotencyKey,
    /// Who asks.
    #[n(1)]
    pub actor: Actor,
    /// A copy that arrives later is refused; microseconds UTC.
    #[n(2)]
    pub not_after_us: Option<u64>,
    /// What for.
    #[n(3)]
    pub body: CommandBody,
    /// The time that the key itself carries, if it does (a client's UUIDv7 or ULID, an internal key); microseconds
    /// UTC. A key that is unknown and older than what the ledger remembers is refused as `too_old`, never taken as new.
    #[n(4)]
    pub key_time_us: Option<u64>,
}

impl Command {
    /// A command without a last moment and with a key that carries no time.
    pub fn new(key: IdempotencyKey, actor: Actor, body: impl Into<CommandBody>) -> Command {
        Command { key, actor, not_after_us: None, body: body.into(), key_time_us: None }
    }
}

/// Declares the command bodies with stable numbers.
macro_rules! command_bodies {
    ($($(#[$doc:meta])* $number:literal $name:ident($payload:ty),)*) => {
        /// Every kind of command.
        #[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
        #[cbor(flat)]
        pub enum CommandBody {
            $($(#[$doc])* #[n($number)] $name(#[n(0)] $payload),)*
        }
        $(impl From<$payload> for CommandBody {
            fn from(payload: $payload) -> Self { CommandBody::$name(payload) }
        })*
    };
}

/// Boxed, because it is twice as large as any other and comes once in a while.
impl From<EconomyPublished> for CommandBody {
    fn from(payload: EconomyPublished) -> Self {
        CommandBody::PublishEconomy(Box::new(payload))
    }
}

command_bodies! {
    /// Begin the log: only as its first command.
    1 OpenNetwork(NetworkOpened),
    /// Take the log over: term + 1.
    2 ChangeWriter(ChangeWriter),
    /// Publish a rate card.
    3 PublishRateCard(PublishRateCard),
    /// Register a vault.
    4 RegisterVault(VaultRegistered),
    /// Open an account.
    10 OpenAccount(OpenAccount),
    /// Close an account.
    11 CloseAccount(CloseAccount),
    /// Cap what one key of an account may spend.
    13 SetSpendCap(SetSpendCap),
    /// Let an account owe up to a limit.
    14 SetCreditLine(SetCreditLine),
    /// Book that an account paid what it had drawn.
    15 RepayCredit(RepayCredit),
    /// Link a wallet and set its cap; the caller has verified the signature.
    12 AuthoriseSpending(SpendAuthorised),
    /// Mirror a confirmed deposit.
    20 ConfirmDeposit(ConfirmDeposit),
    /// Undo a deposit that vanished.
    21 ReverseDeposit(ReverseDeposit),
    /// First sight of an exit request.
    22 SeeExitRequest(ExitRequested),
    /// It was cancelled.
    23 SeeExitCancelled(ExitCancelled),
    /// It was carried out.
    24 SeeExitFinalised(SeeExitFinalised),
    /// Reserve an amount for a withdrawal.
    25 IssueVoucher(IssueVoucher),
    /// The voucher was used on the chain.
    26 RedeemVoucher(RedeemVoucher),
    /// The voucher can no longer be used.
    27 LapseVoucher(LapseVoucher),
    /// A checkpoint is on the chain.
    28 RecordAnchor(CheckpointAnchored),
    /// Grant credit.
    30 IssueGrant(IssueGrant),
    /// Move credit between buckets.
    31 MoveCredit(MoveCredit),
    /// Make earned shares that no vault backs spendable.
    32 TakeEarnings(TakeEarnings),
    /// Hold the worst case and dispatch, in one commit.
    40 Admit(Admit),
    /// Give a running job to another node.
    41 Redispatch(Redispatch),
    /// Charge a job by its verified receipt.
    42 Capture(Capture),
    /// Release a hold without a charge.
    43 Void(Void),
    /// Undo a charge.
    44 ReverseCapture(ReverseCapture),
    /// Emit what is due by now: expired holds and grants, at most `events_max`.
    45 ExpireDue(ExpireDue),
    /// Reserve more for a running job, or give it more time.
    46 ExtendHold(ExtendHold),
    /// Register an operator.
    60 RegisterOperator(OperatorRegistered),
    /// Register a node, or replace what it declares.
    61 RegisterNode(NodeRegistered),
    /// A node leaves.
    62 RetireNode(RetireNode),
    /// Fix a batch's cut-off, charges and payouts.
    70 CloseBatch(CloseBatch),
    /// Fix a batch's roots and commitment.
    71 SubmitBatch(BatchSubmitted),
    /// The batch is final.
    72 ConfirmBatch(ConfirmBatch),
    /// The batch will not be paid as closed.
    73 FailBatch(FailBatch),
    /// The pot paid a claim.
    74 RecordClaim(RecordClaim),
    /// A stuck transaction of a batch was replaced.
    75 RecordReplacement(BatchReplaced),
    /// Compare a vault's holdings with what it owes.
    76 CheckSolvency(CheckSolvency),
    /// Publish the rules of the economies.
    80 PublishEconomy(Box<EconomyPublished>),
    /// Compute and open a day's pool.
    81 OpenAllotmentDay(OpenAllotmentDay),
    /// Give stakers their parts of the day.
    82 AllotStakes(AllotStakes),
    /// Give a new account its sign-up credit.
    83 GrantSignUp(GrantSignUp),
    /// Publish what serving a model earns more, from what was measured.
    84 PublishBounty(PublishBounty),
    /// Say that an operator is the project's fallback hardware, or is not any more.
    85 MarkFallback(FallbackMarked),
    /// Book probes and online time of an operator.
    86 NoteUptime(UptimeNoted),
    /// A job did not stand up to verification.
    87 StrikeOperator(StrikeOperator),
    /// Book how a package was served on a day.
    88 MeasureService(MeasureService),
    /// Fix what the treasury owes workers.
    89 CloseTreasuryEpoch(CloseTreasuryEpoch),
    /// The treasury paid it.
    90 RecordTreasuryPayment(TreasuryEpochPaid),
}

/// See [`CommandBody::ChangeWriter`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct ChangeWriter {
    /// Drawn at boot.
    #[n(0)]
    pub nonce: Hash32,
}

/// See [`CommandBody::PublishRateCard`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct PublishRateCard {
    /// The list; its version must be the last one's plus 1.
    #[n(0)]
    pub card: RateCard,
}

/// See [`CommandBody::OpenAccount`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct OpenAccount {
    /// The new id.
    #[n(0)]
    pub account: AccountId,
}

/// See [`CommandBody::CloseAccount`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct CloseAccount {
    /// Which.
    #[n(0)]
    pub account: AccountId,
}

/// See [`CommandBody::ConfirmDeposit`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct ConfirmDeposit {
    /// Which deposit.
    #[n(0)]
    pub key: DepositKey,
    /// Whose vault balance grew.
    #[n(1)]
    pub wallet: EvmAddress,
    /// Vault units.
    #[n(2)]
    pub units: u64,
    /// Block number.
    #[n(3)]
    pub block: u64,
    /// Block hash.
    #[n(4)]
    pub block_hash: Word32,
}

/// See [`CommandBody::ReverseDeposit`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct ReverseDeposit {
    /// Which deposit.
    #[n(0)]
    pub key: DepositKey,
}

/// See [`CommandBody::SeeExitFinalised`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct SeeExitFinalised {
    /// Where.
    #[n(0)]
    pub vault: VaultRef,
    /// Who.
    #[n(1)]
    pub wallet: EvmAddress,
    /// Paid out, vault units.
    #[n(2)]
    pub units: u64,
    /// The transaction.
    #[n(3)]
    pub tx: Word32,
}

/// See [`CommandBody::IssueVoucher`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct IssueVoucher {
    /// The new id.
    #[n(0)]
    pub voucher: VoucherId,
    /// Whose credit.
    #[n(1)]
    pub account: AccountId,
    /// From which vault.
    #[n(2)]
    pub vault: VaultRef,
    /// The linked wallet that may use it.
    #[n(3)]
    pub wallet: EvmAddress,
    /// Vault units; more than can be withdrawn is refused, and the refusal says how much can.
    #[n(4)]
    pub units: u64,
    /// The vault's withdrawal nonce of the wallet.
    #[n(5)]
    pub nonce: u64,
    /// Seconds UTC on the chain's clock.
    #[n(6)]
    pub deadline_s: u64,
}

/// See [`CommandBody::RedeemVoucher`]. Found by wallet and nonce, as the chain's event names them.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct RedeemVoucher {
    /// Where.
    #[n(0)]
    pub vault: VaultRef,
    /// Who.
    #[n(1)]
    pub wallet: EvmAddress,
    /// Its nonce.
    #[n(2)]
    pub nonce: u64,
    /// Vault units paid.
    #[n(3)]
    pub units: u64,
    /// The transaction.
    #[n(4)]
    pub tx: Word32,
}

/// See [`CommandBody::LapseVoucher`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct LapseVoucher {
    /// Which.
    #[n(0)]
    pub voucher: VoucherId,
    /// The block, deep enough, whose timestamp is past the deadline with the nonce unused.
    #[n(1)]
    pub block: u64,
}

/// See [`CommandBody::IssueGrant`]. Deposits make their own buckets; `Deposited` is refused here.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct IssueGrant {
    /// Whose.
    #[n(0)]
    pub account: AccountId,
    /// From where.
    #[n(1)]
    pub source: GrantSource,
    /// In which asset.
    #[n(2)]
    pub asset: AssetId,
    /// How much, above zero.
    #[n(3)]
    pub amount: Amount,
    /// Lower is consumed first.
    #[n(4)]
    pub priority: u8,
    /// Models it may pay for; empty = all.
    #[n(5)]
    pub scope: Vec<String>,
    /// When it ends; `None` = never.
    #[n(6)]
    pub expires_us: Option<u64>,
    /// What stands behind it.
    #[n(7)]
    pub backing: Backing,
}

/// See [`CommandBody::Admit`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Admit {
    /// The new hold.
    #[n(0)]
    pub hold: HoldId,
    /// The new job.
    #[n(1)]
    pub job: JobId,
    /// Who pays.
    #[n(2)]
    pub account: AccountId,
    /// By its name on the card in force.
    #[n(3)]
    pub model: String,
    /// Prompt tokens.
    #[n(4)]
    pub input_units: u64,
    /// Bound on output tokens.
    #[n(5)]
    pub output_units_max: u64,
    /// When the job must have ended, microseconds UTC.
    #[n(6)]
    pub deadline_us: u64,
    /// The node the router chose.
    #[n(7)]
    pub node: NodeId,
    /// Salted commitment to the body.
    #[n(8)]
    pub body: Hash32,
    /// The key that spends; needed for its cap to count.
    #[n(9)]
    pub spender: Option<SpenderId>,
}

/// See [`CommandBody::Redispatch`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Redispatch {
    /// The job.
    #[n(0)]
    pub job: JobId,
    /// The last attempt's number plus 1.
    #[n(1)]
    pub attempt: u32,
    /// The new node.
    #[n(2)]
    pub node: NodeId,
    /// Salted commitment to the body.
    #[n(3)]
    pub body: Hash32,
    /// Tokens already delivered.
    #[n(4)]
    pub continues_at: u64,
}

/// See [`CommandBody::Capture`]. The caller verified the receipt; the price is the ledger's.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Capture {
    /// The job.
    #[n(0)]
    pub job: JobId,
    /// The attempt that delivered.
    #[n(1)]
    pub attempt: u32,
    /// Which charging rule.
    #[n(2)]
    pub outcome: Outcome,
    /// Prompt tokens: at most what the hold says.
    #[n(3)]
    pub input_units: u64,
    /// Output tokens of the receipt, from the job's beginning (also for a part).
    #[n(4)]
    pub output_units_worker: u64,
    /// Output tokens the gateway saw, from the job's beginning.
    #[n(5)]
    pub output_units_gateway: u64,
    /// BLAKE3 of the signed receipt.
    #[n(6)]
    pub receipt: Hash32,
    /// Digest chain at the billed prefix.
    #[n(7)]
    pub chain_head: Hash32,
    /// Whether the hold stays open for more. `None` = it ends here, as nearly every capture does.
    #[n(8)]
    pub part: Option<CapturePart>,
}

/// See [`CommandBody::Void`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Void {
    /// The job whose hold it is.
    #[n(0)]
    pub job: JobId,
    /// Why.
    #[n(1)]
    pub reason: VoidReason,
}

/// See [`CommandBody::ReverseCapture`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct ReverseCapture {
    /// The job whose charge is undone.
    #[n(0)]
    pub job: JobId,
}

/// See [`CommandBody::ExpireDue`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct ExpireDue {
    /// Most events to emit at once.
    #[n(0)]
    pub events_max: u32,
}

/// See [`CommandBody::RetireNode`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct RetireNode {
    /// Which.
    #[n(0)]
    pub node: NodeId,
}

/// See [`CommandBody::CloseBatch`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct CloseBatch {
    /// The new id.
    #[n(0)]
    pub batch: BatchId,
    /// Whose funds.
    #[n(1)]
    pub vault: VaultRef,
    /// How it is paid.
    #[n(2)]
    pub rail: Rail,
    /// Wallets that wait for another batch: the chain would charge them short, and a batch is charged whole or not at all.
    #[n(3)]
    pub without: Vec<EvmAddress>,
}

/// See [`CommandBody::CheckSolvency`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct CheckSolvency {
    /// Which vault; everything up to the block is mirrored.
    #[n(0)]
    pub vault: VaultRef,
    /// Block number.
    #[n(1)]
    pub block: u64,
    /// Block hash.
    #[n(2)]
    pub block_hash: Word32,
    /// Its tokens at that block, whole vault units.
    #[n(3)]
    pub held_units: u64,
}

/// See [`CommandBody::ConfirmBatch`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct ConfirmBatch {
    /// Which.
    #[n(0)]
    pub batch: BatchId,
    /// The transaction.
    #[n(1)]
    pub tx: Word32,
    /// Block number.
    #[n(2)]
    pub block: u64,
    /// Block hash.
    #[n(3)]
    pub block_hash: Word32,
    /// What the vault really charged, vault units; must equal the batch's charges.
    #[n(4)]
    pub charged_units: u64,
}

/// See [`CommandBody::FailBatch`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct FailBatch {
    /// Which.
    #[n(0)]
    pub batch: BatchId,
    /// A sentence for people.
    #[n(1)]
    pub reason: String,
}

/// See [`CommandBody::RecordClaim`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct RecordClaim {
    /// Which vault's pot.
    #[n(0)]
    pub vault: VaultRef,
    /// The leaf that was claimed.
    #[n(1)]
    pub address: EvmAddress,
    /// Paid, vault units.
    #[n(2)]
    pub units: u64,
    /// The transaction.
    #[n(3)]
    pub tx: Word32,
}

/// See [`CommandBody::SetSpendCap`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct SetSpendCap {
    /// Whose key.
    #[n(0)]
    pub account: AccountId,
    /// Which.
    #[n(1)]
    pub spender: SpenderId,
    /// In which asset.
    #[n(2)]
    pub asset: AssetId,
    /// All it may ever spend, counted from its first cap on; `None` removes the cap.
    #[n(3)]
    pub cap: Option<Amount>,
}

/// See [`CommandBody::SetCreditLine`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct SetCreditLine {
    /// Who may owe.
    #[n(0)]
    pub account: AccountId,
    /// In which asset.
    #[n(1)]
    pub asset: AssetId,
    /// How much at most; below what is drawn and held, the unused part is 0 until it is repaid.
    #[n(2)]
    pub limit: Amount,
    /// The bucket's place in the order of consumption.
    #[n(3)]
    pub priority: u8,
}

/// See [`CommandBody::RepayCredit`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct RepayCredit {
    /// Who paid.
    #[n(0)]
    pub account: AccountId,
    /// In which asset.
    #[n(1)]
    pub asset: AssetId,
    /// How much, above zero and at most what is drawn.
    #[n(2)]
    pub amount: Amount,
    /// Hash of the payment's document.
    #[n(3)]
    pub reference: Hash32,
}

/// See [`CommandBody::MoveCredit`]. Both buckets have one asset and one backing. The target neither outlives the
/// source nor pays for models that the source does not; an allotment, a promotion, a deposit and a credit line stay
/// with their account.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct MoveCredit {
    /// Out of.
    #[n(0)]
    pub from: GrantId,
    /// Into: an existing bucket.
    #[n(1)]
    pub to: GrantId,
    /// How much, above zero and at most what is neither held nor reserved.
    #[n(2)]
    pub amount: Amount,
}

/// See [`CommandBody::ExtendHold`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct ExtendHold {
    /// The running job whose hold it is.
    #[n(0)]
    pub job: JobId,
    /// The new bound on output tokens, for the whole job; not below the old one.
    #[n(1)]
    pub output_units_max: u64,
    /// The new deadline, microseconds UTC; not before the old one.
    #[n(2)]
    pub deadline_us: u64,
}

/// See [`CommandBody::TakeEarnings`]. Shares that a vault backs are paid on the chain, by batches.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct TakeEarnings {
    /// Who earned.
    #[n(0)]
    pub account: AccountId,
    /// In which asset.
    #[n(1)]
    pub asset: AssetId,
    /// What stood behind the credit that was charged, and will stand behind what is taken.
    #[n(2)]
    pub backing: Backing,
    /// How much, above zero and at most what waits with this backing.
    #[n(3)]
    pub amount: Amount,
}
