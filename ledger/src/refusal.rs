//! Refusals: why a command was not done. In the order they are checked, family by family; numbers and names are stable,
//! appear in the API and the docs, and are never reused. Refusals are answered, not logged.

mod wire;

use protocol::amount::Amount;
use protocol::asset::{AssetId, VaultRef};
use protocol::event::GrantId;
use protocol::event::chain::DepositKey;
use protocol::id::{
    AccountId, BatchId, EvmAddress, HoldId, IdempotencyKey, JobId, NodeId, OperatorId, SpenderId, VoucherId,
    Word32,
};
use serde::Serialize;

/// Declares the refusals: number, name, variant with its fields, sentence.
macro_rules! refusals {
    ($($(#[$doc:meta])* $code:literal $name:literal $variant:ident { $($field:ident: $type:ty),* }
       $text:literal $(, $argument:expr)*;)*) => {
        /// Every reason to refuse. `Display` says what was expected, what came, and what to do.
        #[derive(Clone, PartialEq, Eq, Debug, Serialize)]
        #[serde(tag = "refusal")]
        pub enum Refusal {
            $(
                $(#[$doc])*
                #[serde(rename = $name)]
                $variant {
                    $(
                        #[doc = concat!("The sentence's `", stringify!($field), "`.")]
                        $field: $type
                    ),*
                },
            )*
        }

        impl Refusal {
            /// Its stable number.
            pub fn code(&self) -> u16 {
                match self { $(Refusal::$variant { .. } => $code,)* }
            }

            /// Its stable name, as in the API and the docs.
            pub fn name(&self) -> &'static str {
                match self { $(Refusal::$variant { .. } => $name,)* }
            }

            /// Every refusal there is: number and name, in check order.
            pub const ALL: &'static [(u16, &'static str)] = &[$(($code, $name)),*];
        }

        impl std::fmt::Display for Refusal {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self { $(Refusal::$variant { $($field),* } => write!(f, $text $(, $argument)*),)* }
            }
        }

        impl std::error::Error for Refusal {}

        impl<C> minicbor::Encode<C> for Refusal {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                match self {
                    $(Refusal::$variant { $($field),* } => {
                        let fields: &[&str] = &[$(stringify!($field)),*];
                        e.array(1 + fields.len() as u64)?.u16($code)?;
                        $(wire::Field::put($field, e)?;)*
                    })*
                }
                Ok(())
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for Refusal {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                let at = d.position();
                let unknown =
                    || minicbor::decode::Error::message("not a refusal that this program knows: use a newer one").at(at);
                let items = d.array()?.ok_or_else(unknown)?;
                match d.u16()? {
                    $($code => {
                        let fields: &[&str] = &[$(stringify!($field)),*];
                        if items != 1 + fields.len() as u64 {
                            return Err(unknown());
                        }
                        $(let $field = <$type as wire::Field>::take(d)?;)*
                        Ok(Refusal::$variant { $($field),* })
                    })*
                    _ => Err(unknown()),
                }
            }
        }

        #[cfg(test)]
        impl Refusal {
            /// One of each.
            pub(crate) fn samples() -> Vec<Refusal> {
                vec![$(Refusal::$variant { $($field: <$type as wire::Field>::sample()),* }),*]
            }
        }
    };
}

refusals! {
    /// The key stands for another command.
    100 "key_reused" KeyReused { key: IdempotencyKey, first_leaf: u64 }
        "key {key} was used for another command (leaf {first_leaf}): use a new key";
    /// The caller said it would not matter any more.
    101 "too_late" TooLate { not_after_us: u64, now_us: u64 }
        "the command was to be done by {not_after_us} us and it is {now_us} us: send it anew if it still matters";
    /// Only the first command opens the network.
    102 "network_not_opened" NetworkNotOpened {}
        "the log is empty: open the network first";
    /// It is open.
    103 "network_already_opened" NetworkAlreadyOpened {}
        "the network was opened by the log's first event and cannot be opened again";
    /// Settings that the rules cannot work with.
    104 "settings_invalid" SettingsInvalid { detail: String }
        "the network's settings are refused: {detail}";
    /// A figure beyond 128 bits, or close to it.
    105 "overflow" Overflow { what: &'static str }
        "{what} would leave its range: use smaller figures";
    /// An event that does not fit a log entry.
    106 "event_too_large" EventTooLarge { bytes: u64 }
        "the event would have {bytes} bytes and at most 61440 fit a log entry: use shorter lists and texts";
    /// Unknown, and from before what is remembered.
    107 "too_old" TooOld { key: IdempotencyKey, key_time_us: u64, oldest_us: u64 }
        "key {key} is of {key_time_us} us and keys are remembered back to {oldest_us} us: whether it was done before is in the books, send it anew only if it was not";
    /// Remembered from now on, it would be forgotten before it is too old.
    108 "key_time_ahead" KeyTimeAhead { key_time_us: u64, now_us: u64 }
        "the key is of {key_time_us} us and it is {now_us} us: set the clock that makes keys";
    /// No such asset.
    110 "asset_unknown" AssetUnknown { asset: AssetId }
        "asset {} is not one of the network's assets", asset.0;
    /// An asset that no vault can hold.
    111 "asset_not_on_chain" AssetNotOnChain { asset: AssetId }
        "asset {} cannot lie in a vault: it needs a chain scale and a ledger scale of at least 6", asset.0;
    /// Versions grow by one.
    120 "rate_card_version" RateCardVersion { expected: u32, given: u32 }
        "the rate card's version must be {expected}, it is {given}: publish it as {expected}";
    /// Prices never change backwards.
    121 "rate_card_in_the_past" RateCardInThePast { effective_us: u64, now_us: u64 }
        "the rate card is effective from {effective_us} us and it is {now_us} us already: prices never change backwards";
    /// A rate that cannot be used.
    122 "rate_invalid" RateInvalid { model: String, detail: &'static str }
        "the rate of {model:?} is refused: {detail}";
    /// The platform's part would be below the card's headroom.
    123 "headroom_too_small" HeadroomTooSmall { model: String, operator_share_ppm: u32, headroom_ppm: u32, share_max_ppm: u32 }
        "the rate of {model:?} gives the operator {operator_share_ppm} ppm, but 1000000 - headroom {headroom_ppm} = {share_max_ppm} ppm is the most: lower the share or the headroom";
    /// Nothing has a price yet.
    124 "no_rate_card" NoRateCard {}
        "no rate card is in force yet: publish one";
    /// Not on the card in force.
    125 "model_unknown" ModelUnknown { model: String, version: u32 }
        "model {model:?} is not on rate card {version}: choose one that is";
    /// Ids are used once.
    130 "account_known" AccountKnown { account: AccountId }
        "account {account} exists already";
    /// No such account.
    131 "account_unknown" AccountUnknown { account: AccountId }
        "account {account} does not exist: open it first";
    /// Closed for good.
    132 "account_closed" AccountIsClosed { account: AccountId }
        "account {account} is closed";
    /// It owes; deposits repay first.
    133 "account_frozen" AccountFrozen { account: AccountId, owed: Amount, asset: AssetId }
        "account {account} owes {} base units of asset {} after a reversed deposit or an exit: deposit at least that much", owed.0, asset.0;
    /// Something is left that its owner could still want.
    134 "account_not_empty" AccountNotEmpty { account: AccountId, left: Amount }
        "account {account} still has {} base units in deposits, holds or vouchers: withdraw or wait, then close it", left.0;
    /// It was never opened.
    135 "credit_line_unknown" CreditLineUnknown { account: AccountId, asset: AssetId }
        "account {account} has no credit line in asset {}: set one first", asset.0;
    /// A credit line that cannot be.
    136 "credit_line_invalid" CreditLineInvalid { detail: &'static str }
        "the credit line is refused: {detail}";
    /// Only what was drawn is repaid.
    137 "repays_more_than_drawn" RepaysMoreThanDrawn { asked: Amount, drawn: Amount }
        "{} base units were repaid and {} are drawn: book at most that", asked.0, drawn.0;
    /// The key may not spend so much.
    138 "spend_cap_reached" SpendCapReached { spender: SpenderId, cap: Amount, spent: Amount, asked: Amount }
        "key {spender} may spend {} base units for life, {} are spent or held and {} more are asked: raise its cap", cap.0, spent.0, asked.0;
    /// A cap that cannot be.
    139 "spend_cap_invalid" SpendCapInvalid { detail: &'static str }
        "the spend cap is refused: {detail}";
    /// Registered once.
    140 "vault_known" VaultKnown { vault: VaultRef }
        "vault {} on chain {} is registered already", vault.vault, vault.chain_id;
    /// No such vault.
    141 "vault_unknown" VaultUnknown { vault: VaultRef }
        "vault {} on chain {} is not registered: register it first", vault.vault, vault.chain_id;
    /// Nothing is not an amount.
    142 "units_zero" UnitsZero {}
        "the amount must be above zero";
    /// The chain says another figure.
    143 "units_differ" UnitsDiffer { expected_units: u64, given_units: u64 }
        "{expected_units} vault units were expected and {given_units} came: reconcile with the chain before going on";
    /// A deposit is mirrored exactly once.
    144 "deposit_known" DepositKnown { key: DepositKey }
        "deposit {} number {} is mirrored already", key.tx, key.ordinal;
    /// Only a mirrored deposit is reversed.
    145 "deposit_unknown" DepositUnknown { key: DepositKey }
        "deposit {} number {} was not mirrored, or was reversed already", key.tx, key.ordinal;
    /// One wallet, one account.
    146 "wallet_linked_elsewhere" WalletLinkedElsewhere { wallet: EvmAddress }
        "wallet {wallet} is linked to another account: one wallet, one account";
    /// Not this account's.
    147 "wallet_not_linked" WalletNotLinked { wallet: EvmAddress }
        "wallet {wallet} is not linked to this account: sign a spend authorisation first";
    /// Over before it began.
    148 "authorisation_expired" AuthorisationExpired { valid_until_s: u32 }
        "the authorisation ended at {valid_until_s} s: sign one that is valid longer";
    /// The vault has moved on.
    149 "authorisation_nonce" AuthorisationNonce { known: u64, given: u64 }
        "the authorisation is for nonce {given} and the vault is at {known}: sign a new one";
    /// Caps only rise.
    150 "authorisation_not_higher" AuthorisationNotHigher { known_units: u64, given_units: u64 }
        "the authorised maximum is {known_units} vault units for life and {given_units} is not higher: nothing to do";
    /// An exit request is known.
    160 "exit_pending" ExitPending { wallet: EvmAddress }
        "wallet {wallet} asked the vault to leave: cancel that on the chain first";
    /// None is known.
    161 "no_exit_pending" NoExitPending { wallet: EvmAddress }
        "no exit request of wallet {wallet} is known";
    /// Running jobs end first.
    162 "holds_open" HoldsOpen { wallet: EvmAddress, held: Amount }
        "{} base units of wallet {wallet} are held by running jobs: try again when they have ended", held.0;
    /// Ids are used once.
    163 "voucher_known" VoucherKnown { voucher: VoucherId }
        "voucher {voucher} exists already";
    /// No such voucher.
    164 "voucher_unknown" VoucherUnknown { voucher: VoucherId }
        "voucher {voucher} does not exist";
    /// It ended before.
    165 "voucher_closed" VoucherClosed { voucher: VoucherId, state: &'static str }
        "voucher {voucher} is {state} already";
    /// The chain paid what we do not know.
    166 "voucher_not_open" VoucherNotOpen { wallet: EvmAddress, nonce: u64, units: u64 }
        "the chain paid {units} vault units to {wallet} by nonce {nonce}, and no open voucher says so: reconcile by hand";
    /// One open voucher per wallet and nonce.
    167 "nonce_in_use" NonceInUse { nonce: u64, voucher: VoucherId }
        "withdrawal nonce {nonce} is in open voucher {voucher}: use that one or wait until it lapses";
    /// Held funds and open vouchers stay.
    168 "more_than_withdrawable" MoreThanWithdrawable { asked_units: u64, withdrawable_units: u64 }
        "{asked_units} vault units were asked for and {withdrawable_units} can be withdrawn now: ask for at most that";
    /// Too early or too late.
    169 "deadline_out_of_range" DeadlineOutOfRange { deadline_us: u64, now_us: u64, deadline_us_max: u64 }
        "the deadline {deadline_us} us must be after {now_us} us and at most {deadline_us_max} us";
    /// A grant that cannot be.
    170 "grant_invalid" GrantInvalid { detail: &'static str }
        "the grant is refused: {detail}";
    /// No such bucket.
    171 "grant_unknown" GrantUnknown { grant: GrantId }
        "grant {} does not exist", grant.0;
    /// Credit that may not go there.
    172 "move_refused" MoveRefused { from: GrantId, to: GrantId, detail: &'static str }
        "credit of grant {} does not move to grant {}: {detail}", from.0, to.0;
    /// The chain pays it.
    173 "earnings_on_chain" EarningsOnChain { vault: VaultRef }
        "what vault {} on chain {} backs is paid there by batches: claim it from the pot", vault.vault, vault.chain_id;
    /// Not so much waits.
    174 "more_than_earned" MoreThanEarned { asked: Amount, waiting: Amount }
        "{} base units were asked for and {} wait with this backing: take at most that", asked.0, waiting.0;
    /// What was earned by the charge is gone.
    175 "earnings_spent" EarningsSpent { job: JobId, needed: Amount, available: Amount }
        "the shares of job {job} were taken and spent: {} base units are to come back and {} wait or are free, refund it by a grant", needed.0, available.0;
    /// Registered once.
    180 "operator_known" OperatorKnown { operator: OperatorId }
        "operator {operator} is registered already";
    /// No such operator.
    181 "operator_unknown" OperatorUnknown { operator: OperatorId }
        "operator {operator} is not registered: register it first";
    /// A claim is found by its address.
    182 "payout_address_taken" PayoutAddressTaken { address: EvmAddress }
        "payout address {address} belongs to another payee, or this account is paid to another address: one account, one address";
    /// No such node.
    183 "node_unknown" NodeUnknown { node: NodeId }
        "node {node} is not registered";
    /// It left.
    184 "node_retired" NodeIsRetired { node: NodeId }
        "node {node} has left for good: register under a new id";
    /// Not yours.
    185 "node_of_another" NodeOfAnother { node: NodeId, operator: OperatorId }
        "node {node} belongs to operator {operator}";
    /// A node that cannot be.
    186 "node_invalid" NodeInvalid { detail: &'static str }
        "the node is refused: {detail}";
    /// Routed to the wrong node.
    187 "model_not_served" ModelNotServed { node: NodeId, model: String }
        "node {node} does not serve {model:?}: choose one that does";
    /// Ids are used once.
    200 "job_known" JobKnown { job: JobId }
        "job {job} or its hold exists already: every job has new ids";
    /// No such job.
    201 "job_unknown" JobUnknown { job: JobId }
        "job {job} does not exist";
    /// Nothing asked for.
    202 "output_bound_zero" OutputBoundZero {}
        "the bound on output must be at least 1";
    /// Longer than the model takes.
    203 "context_exceeded" ContextExceeded { input_units: u64, output_units_max: u64, context_tokens: u32 }
        "{input_units} input and {output_units_max} output units exceed the model's context of {context_tokens}: shorten the prompt or lower the bound";
    /// Not enough spendable credit for the worst case.
    204 "insufficient_credit" InsufficientCredit { needed: Amount, available: Amount, asset: AssetId }
        "{} base units of asset {} are needed and {} are available: top up or lower the bound", needed.0, asset.0, available.0;
    /// A hold closes once.
    205 "hold_closed" HoldClosed { job: JobId, hold: HoldId, by: &'static str }
        "hold {hold} of job {job} is closed: it was {by}";
    /// Attempts grow by one.
    206 "attempt_number" AttemptNumber { job: JobId, expected: u32, given: u32 }
        "the next attempt of job {job} is {expected}, {given} came, and 16 are the most";
    /// Never dispatched.
    207 "attempt_unknown" AttemptUnknown { given: u32, attempts: u32 }
        "attempt {given} was not dispatched: there are {attempts}, numbered from 0";
    /// Too late for another node.
    208 "deadline_passed" DeadlinePassed { deadline_us: u64, now_us: u64 }
        "the job had to end by {deadline_us} us and it is {now_us} us: void it";
    /// More than was held for.
    209 "input_above_hold" InputAboveHold { given: u64, held: u64 }
        "{given} input units were claimed and the hold covers {held}";
    /// More than was held for.
    210 "output_above_hold" OutputAboveHold { given: u64, held: u64 }
        "{given} output units were claimed and the hold covers {held}";
    /// An empty answer is not charged.
    211 "nothing_delivered" NothingDelivered { job: JobId }
        "nothing of job {job} was delivered, so nothing is charged: void it with no_usage";
    /// Nothing to reverse.
    212 "not_captured" NotCaptured { job: JobId, state: &'static str }
        "job {job} is {state}, only a captured one is reversed";
    /// Reversed once.
    213 "already_reversed" AlreadyReversed { job: JobId }
        "the charge of job {job} was reversed already";
    /// Settled or being settled.
    214 "capture_in_batch" CaptureInBatch { job: JobId }
        "the charge of job {job} is in a settlement batch: cumulative charges never fall, refund it by a grant";
    /// Nothing to expire.
    215 "nothing_due" NothingDue { now_us: u64, next_us: Option<u64> }
        "nothing is due at {now_us} us; the next timer: {next_us:?}";
    /// A hold grows, or stays.
    216 "extension_invalid" ExtensionInvalid { job: JobId, detail: &'static str }
        "the hold of job {job} is not extended: {detail}";
    /// Parts come in order.
    217 "part_number" PartNumber { job: JobId, expected: u32, given: Option<u32> }
        "the next part of job {job} is {expected} and {given:?} came: parts are numbered from 0 without gaps";
    /// Figures of a part are from the job's beginning.
    218 "part_goes_back" PartGoesBack { job: JobId, input_units: u64, output_units: u64 }
        "{input_units} input and {output_units} output units of job {job} are billed already: a part's figures count from the job's beginning";
    /// Too far above the hold.
    219 "beyond_tolerance" BeyondTolerance { cost: Amount, hold: Amount, tolerance_ppm: u32 }
        "the job would cost {} base units, its hold is {} and {tolerance_ppm} ppm more are the most: extend the hold in time", cost.0, hold.0;
    /// Ids are used once.
    220 "batch_known" BatchKnown { batch: BatchId }
        "batch {batch} exists already";
    /// No such batch.
    221 "batch_unknown" BatchUnknown { batch: BatchId }
        "batch {batch} does not exist";
    /// One open batch a vault.
    222 "batch_open" BatchOpen { batch: BatchId }
        "batch {batch} of this vault is neither confirmed nor failed: wait for it";
    /// Steps come in order.
    223 "batch_not_open" BatchNotOpen { batch: BatchId, state: &'static str }
        "batch {batch} is {state}: this step does not follow";
    /// Nothing waits, or too little.
    224 "nothing_to_charge" NothingToCharge { vault: VaultRef }
        "no wallet of vault {} has enough to charge yet", vault.vault;
    /// A batch is sent only when its close is covered.
    225 "checkpoint_too_small" CheckpointTooSmall { size: u64, leaf: u64 }
        "the checkpoint covers {size} leaves and the batch was closed at leaf {leaf}: wait for one that covers it";
    /// Nobody's address.
    226 "payee_unknown" PayeeUnknown { address: EvmAddress }
        "no payee has address {address}";
    /// Recorded once.
    227 "claim_known" ClaimKnown { address: EvmAddress, tx: Word32 }
        "the claim of {address} in {tx} is recorded already";
    /// The pot paid what the books do not owe.
    228 "more_than_claimable" MoreThanClaimable { asked_units: u64, claimable_units: u64 }
        "{asked_units} vault units were claimed and {claimable_units} are confirmed and unclaimed: reconcile with the chain";
    /// Anchors grow.
    229 "anchor_size" AnchorSize { last: u64, given: u64, leaves: u64 }
        "an anchor's size must be above {last} and at most {leaves}, {given} came";
    /// A job goes on where it was, or later.
    230 "cut_goes_back" CutGoesBack { job: JobId, given: u64, least: u64 }
        "job {job} cannot go on at {given}: {least} output units are billed or were cut off before, go on there or later";
    /// An attempt is paid for its own output.
    231 "outside_cut" OutsideCut { attempt: u32, given: u64, from: u64, until: Option<u64> }
        "attempt {attempt} is paid from output unit {from} to {until:?} of the job and {given} were counted: count to the end of its own";
    /// An economy that the network's rules do not have.
    260 "economy_absent" EconomyAbsent { part: &'static str }
        "this network has no rules for {part}: publish them first, or use a network that has";
    /// Rules that cannot work.
    261 "economy_invalid" EconomyInvalid { detail: String }
        "these rules cannot work: {detail}";
    /// Days are opened one after the other.
    262 "allotment_day_wrong" AllotmentDayWrong { given: u64, today: u64, detail: &'static str }
        "day {given} (today is {today}): {detail}";
    /// An account and a wallet have one part a day.
    263 "stake_twice" StakeTwice { account: AccountId, wallet: EvmAddress }
        "account {account} or wallet {wallet} has its part of the day already";
    /// Stakes add up to all stake at most.
    264 "stake_above_total" StakeAboveTotal { seen_units: u64, total_units: u64 }
        "stakes of {seen_units} units were seen and all stake is {total_units}: read them at the day's block";
    /// A linked wallet's stake is its account's.
    265 "stake_of_another" StakeOfAnother { wallet: EvmAddress, account: AccountId }
        "wallet {wallet} is linked to account {account}: allot its stake there";
    /// Once an account.
    266 "sign_up_twice" SignUpTwice { account: AccountId }
        "account {account} has had its sign-up credit";
    /// The published budget.
    267 "sign_up_exhausted" SignUpExhausted { needed: Amount, left: Amount, period: &'static str }
        "sign-up credit is {} base units and {} of the budget are left {period}: top up instead", needed.0, left.0;
    /// Verification failed too often.
    268 "operator_banned" OperatorBanned { operator: OperatorId }
        "operator {operator} failed verification too often and gets no more jobs: choose another node";
    /// The rolling reserve.
    269 "earnings_reserved" EarningsReserved { asked: Amount, takeable: Amount, reserve: Amount }
        "{} base units were asked for and {} can be taken now: {} of what was earned lately stays until it could be verified", asked.0, takeable.0, reserve.0;
    /// A strike is for an undone charge.
    270 "strike_refused" StrikeRefused { job: JobId, detail: &'static str }
        "no strike for job {job}: {detail}";
    /// A package's level is measured once a day.
    271 "service_refused" ServiceRefused { package: GrantId, detail: &'static str }
        "the service of bucket {} cannot be booked: {detail}", package.0;
    /// The treasury pays epoch by epoch.
    272 "treasury_refused" TreasuryRefused { detail: &'static str }
        "the treasury's epoch: {detail}";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_sorted() {
        for pair in Refusal::ALL.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{pair:?}");
        }
        let mut names: Vec<_> = Refusal::ALL.iter().map(|(_, name)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Refusal::ALL.len());
    }

    #[test]
    fn a_refusal_says_its_figures() {
        let refusal =
            Refusal::InsufficientCredit { needed: Amount(5), available: Amount(3), asset: AssetId(0) };
        assert_eq!(
            refusal.to_string(),
            "5 base units of asset 0 are needed and 3 are available: top up or lower the bound"
        );
        assert_eq!((refusal.code(), refusal.name()), (204, "insufficient_credit"));
        let json = serde_json::to_value(&refusal).unwrap();
        assert_eq!(json["refusal"], "insufficient_credit");
        assert_eq!(json["needed"], "5");
    }
}
