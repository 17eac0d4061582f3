//! One honest story, event by event, with figures worked out by hand: a deposit of 5, two charged prompts and a void one,
//! a settlement, a claim, a withdrawal. Cheating coordinators start from it.

use crate::log::{self, entries_of};
use auditor::settlement::{ServedRequest, commitment, payout_root, requests_root};
use auditor::{Report, replay, verify};
use ed25519_dalek::{Signer, SigningKey};
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId, VaultRef};
use protocol::codec::encode_event;
use protocol::event::account::*;
use protocol::event::batch::*;
use protocol::event::chain::*;
use protocol::event::grant::*;
use protocol::event::hold::*;
use protocol::event::job::*;
use protocol::event::node::*;
use protocol::event::policy::*;
use protocol::event::*;
use protocol::id::*;
use protocol::job_message::{JobBody, sampling_key};
use protocol::proof::leaf_hash;
use protocol::rate::*;
use protocol::receipt::{Finish, Receipt};
use std::collections::HashMap;
use std::path::Path;

pub const FOIL: AssetId = AssetId(0);
pub const CUSTOMER: AccountId = AccountId([6; 16]);
pub const OWNER: AccountId = AccountId([7; 16]);
pub const NODE: NodeId = NodeId([8; 16]);
pub const BATCH: BatchId = BatchId([9; 16]);
pub const WALLET: EvmAddress = EvmAddress([0xb2; 20]);
pub const PAYEE: EvmAddress = EvmAddress([0x11; 20]);
pub const PLATFORM: EvmAddress = EvmAddress([0xa5; 20]);
pub const MODEL: &str = "small";
pub const WEIGHTS: Hash32 = Hash32([1; 32]);
pub const START_US: u64 = 1_790_000_000_000_000;
pub const JOBS: [JobId; 3] = [JobId([21; 16]), JobId([22; 16]), JobId([23; 16])];

/// Figures of the two charges: 1420 and 21 tokens at 4001 for 2, rounded up; 80 % of the running sum, rounded down.
pub const COSTS: [i128; 2] = [2_840_710, 42_011];
pub const SHARES: [i128; 2] = [2_272_568, 33_608];
/// 2882 whole units cover the first charge and 41 290 of the second, 33 031 of its share: 2 305 599 for the operator.
pub const CHARGED_UNITS: u64 = 2_882;
pub const OPERATOR_UNITS: u64 = 2_305;
pub const SECOND_PART: i128 = 33_031;

pub fn vault() -> VaultRef {
    VaultRef { chain_id: 31337, vault: EvmAddress([0xa1; 20]) }
}

pub fn operator_key() -> SigningKey {
    SigningKey::from_bytes(&[17; 32])
}

pub fn operator() -> OperatorId {
    OperatorId(operator_key().verifying_key().to_bytes())
}

pub fn fresh_account() -> AccountOpened {
    AccountOpened { account: AccountId([77; 16]) }
}

pub fn tx(n: u8) -> Word32 {
    Word32([n; 32])
}

pub fn card(version: u32, price: i128) -> RateCard {
    RateCard {
        version,
        effective_us: START_US,
        headroom_ppm: 150_000,
        models: vec![ModelRate {
            model: MODEL.into(),
            weights: WEIGHTS,
            tokenizer: Hash32([2; 32]),
            template: Hash32([3; 32]),
            licence: "Apache-2.0".into(),
            proof_class: ProofClass::ReExecutable,
            asset: FOIL,
            unit: Unit::Token,
            price: Amount(price),
            per_units: 2,
            operator_share_ppm: 800_000,
            context_tokens: 8_192,
        }],
    }
}

/// A story being told.
#[derive(Clone)]
pub struct Story {
    pub events: Vec<Event>,
    books: HashMap<(AccountId, AccountKind), LedgerAccount>,
    key: u64,
}

impl Story {
    /// Adds an event as a command of its own.
    pub fn tell(
        &mut self,
        body: impl Into<EventBody>,
        postings: &[(LedgerAccount, i128)],
        pending: &[(LedgerAccount, i128)],
    ) -> usize {
        self.key += 1;
        self.same_command(body, postings, pending)
    }

    /// Adds an event to the command before.
    pub fn same_command(
        &mut self,
        body: impl Into<EventBody>,
        postings: &[(LedgerAccount, i128)],
        pending: &[(LedgerAccount, i128)],
    ) -> usize {
        let leg = |(account, amount): &(LedgerAccount, i128)| Posting {
            account: *account,
            amount: Amount(*amount),
        };
        let leaf = self.events.len() as u64;
        let header = Header {
            shard: 0,
            leaf,
            commit: self.key,
            time_us: START_US + self.key * 1_000,
            actor: Actor::Writer,
            key: IdempotencyKey::internal("story", &[&self.key.to_le_bytes()]),
            command: self.key,
        };
        let (postings, pending) = (postings.iter().map(leg).collect(), pending.iter().map(leg).collect());
        self.events.push(Event { version: EVENT_VERSION, header, body: body.into(), postings, pending });
        leaf as usize
    }

    pub fn book(&self, owner: AccountId, kind: AccountKind) -> LedgerAccount {
        self.books[&(owner, kind)]
    }

    /// Forgets all from this leaf on.
    pub fn rewind(&mut self, leaf: usize) {
        self.events.truncate(leaf);
        self.key = self.events.last().map_or(0, |event| event.header.commit);
    }

    /// Opens ledger accounts that the story did not have yet.
    pub fn open_books(&mut self, kinds: &[(AccountId, AccountKind)]) {
        let new: Vec<_> = kinds.iter().filter(|key| !self.books.contains_key(key)).collect();
        let mut opened = Vec::new();
        for (owner, kind) in new {
            let number = LedgerAccount(self.books.len() as u32);
            self.books.insert((*owner, *kind), number);
            opened.push(OpenedLedgerAccount { number, owner: *owner, kind: *kind, asset: FOIL });
        }
        self.tell(LedgerAccountsOpened { opened }, &[], &[]);
    }

    pub fn find(&self, kind: &str, nth: usize) -> usize {
        let mut found = self.events.iter().enumerate().filter(|(_, event)| event.body.kind() == kind);
        found.nth(nth).unwrap_or_else(|| panic!("no event {kind} {nth}")).0
    }

    /// Fixes what follows from everything before: heads, roots and commitment of the submission.
    pub fn seal(&mut self) {
        let closed = self.events.iter().find_map(|event| match &event.body {
            EventBody::BatchClosed(closed) => Some(closed.clone()),
            _ => None,
        });
        let Some(at) =
            self.events.iter().position(|event| matches!(event.body, EventBody::BatchSubmitted(_)))
        else {
            return;
        };
        let closed = closed.expect("closed before it is submitted");
        let hashes: Vec<Hash32> =
            self.events[..at].iter().map(|event| leaf_hash(&encode_event(event).unwrap())).collect();
        let requests: Vec<ServedRequest> = [(0, SHARES[0]), (1, SECOND_PART)]
            .into_iter()
            .map(|(n, share)| ServedRequest {
                job: JOBS[n],
                operator: PAYEE,
                amount_base_units: share as u128,
                receipt: receipt_hash(n),
            })
            .collect();
        let EventBody::BatchSubmitted(event) = &mut self.events[at].body else { unreachable!() };
        event.tlog_size = at as u64;
        event.tlog_root = log::root(&hashes);
        event.requests_root = requests_root(vault(), 1, &requests);
        event.payout_root = payout_root(closed.payouts.iter().map(|p| (p.address, p.cumulative_units)));
        event.root_total_units = closed.payouts.iter().map(|p| p.cumulative_units).sum();
        event.commitment = commitment(event.requests_root, event.tlog_size, event.tlog_root);
    }

    pub fn write(&self, directory: &Path) {
        log::write(directory, &entries_of(&self.events));
    }

    /// Writes the story as a correctly hashed and signed log and replays it; the log itself must verify.
    pub fn replayed(&self) -> Report {
        let directory = tempfile::tempdir().unwrap();
        self.write(directory.path());
        let options = verify::VerifyOptions {
            directory: directory.path().to_owned(),
            policy: None,
            since: None,
            chain: None,
        };
        assert_eq!(verify::verify(&options).unwrap().exit_code, 0, "correctly hashed and signed");
        replay_of(directory.path())
    }
}

pub fn replay_of(directory: &Path) -> Report {
    let options = replay::ReplayOptions { directory: directory.to_owned(), policy: None, at: None };
    replay::replay(&options).unwrap()
}

pub fn body(n: usize, commit: Hash32) -> JobBody {
    let seed = (n == 0).then_some(5);
    JobBody {
        job: JOBS[n],
        prompt_ids: vec![1, 2, 3],
        messages: serde_json::json!([]),
        max_tokens: 1_000,
        temperature_millionths: 700_000,
        top_p_millionths: 1_000_000,
        top_k: 0,
        seed,
        sampling_key: sampling_key(seed, &JOBS[n], &commit),
        stop: vec![],
        controls: Default::default(),
        salt: Hash32([n as u8; 32]),
    }
}

pub fn output_ids(n: usize) -> Vec<u32> {
    (0..[1_000, 10][n]).collect()
}

pub fn receipt_bytes(n: usize) -> Vec<u8> {
    let body = body(n, Hash32([0; 32]));
    let output = protocol::commitment::token_bytes(&output_ids(n));
    let receipt = Receipt {
        version: 1,
        job: JOBS[n],
        attempt: 0,
        node: NODE,
        operator: operator(),
        weights: WEIGHTS,
        numerics: "counterfoil-numerics-1".into(),
        proof_class: ProofClass::ReExecutable,
        body: body.commitment(),
        input_tokens: [420, 11][n],
        output_tokens: [1_000, 10][n],
        output: protocol::commitment::commit(protocol::commitment::Committed::Output, &body.salt.0, &output),
        chain_head: Hash32([30 + n as u8; 32]),
        finish: Finish::Stop,
        started_us: 1,
        ended_us: 2,
        backend: "test".into(),
    };
    receipt.sign(|bytes| operator_key().sign(bytes).to_bytes()).to_bytes()
}

pub fn receipt_hash(n: usize) -> Hash32 {
    protocol::receipt::SignedReceipt::hash(&receipt_bytes(n))
}

fn opening(story: &mut Story) {
    let settings = Settings {
        epoch_us: 21_600_000_000,
        hold_grace_us: 30_000_000,
        job_deadline_us_max: 600_000_000,
        idempotency_us: 86_400_000_000,
        settle_units_min: 0,
        voucher_us: 3_600_000_000,
        authorisation_margin_epochs: 2,
        capture_tolerance_ppm: None,
    };
    let foil = Asset { id: FOIL, symbol: "FOIL".into(), ledger_scale: 9, chain_scale: Some(18) };
    let network = NetworkOpened {
        origin: log::ORIGIN.into(),
        preset: "prepaid".into(),
        preset_hash: Hash32([4; 32]),
        assets: vec![foil],
        settings,
    };
    story.tell(network, &[], &[]);
    story.tell(WriterChanged { epoch: 1, nonce: Hash32([5; 32]) }, &[], &[]);
    let card = card(1, 4_001);
    story.tell(RateCardPublished { hash: card.hash(), card }, &[], &[]);
    let registered = VaultRegistered {
        vault: vault(),
        payouts: EvmAddress([0xa2; 20]),
        token: EvmAddress([0xa3; 20]),
        asset: FOIL,
        deployed_block: 1,
        coordinator: EvmAddress([0xa4; 20]),
        platform: PLATFORM,
    };
    story.tell(registered, &[], &[]);
    story.tell(AccountOpened { account: CUSTOMER }, &[], &[]);
    story.tell(AccountOpened { account: OWNER }, &[], &[]);
    let registered = OperatorRegistered { operator: operator(), account: OWNER, payout_address: PAYEE };
    story.tell(registered, &[], &[]);
    let node = NodeRegistered {
        node: NODE,
        operator: operator(),
        models: vec![MODEL.into()],
        slots: 4,
        sealing_key: SealingKey([24; 32]),
    };
    story.tell(node, &[], &[]);
    let kinds = [
        (AccountId::SYSTEM, AccountKind::VaultAsset),
        (CUSTOMER, AccountKind::CustomerDeposited),
        (AccountId::SYSTEM, AccountKind::HoldsPending),
        (OWNER, AccountKind::OperatorAccrued),
        (AccountId::SYSTEM, AccountKind::PlatformRevenue),
        (OWNER, AccountKind::OperatorSettling),
        (OWNER, AccountKind::OperatorPayable),
        (AccountId::SYSTEM, AccountKind::PotAsset),
    ];
    let opened = kinds.iter().enumerate().map(|(number, (owner, kind))| {
        let number = LedgerAccount(number as u32);
        story.books.insert((*owner, *kind), number);
        OpenedLedgerAccount { number, owner: *owner, kind: *kind, asset: FOIL }
    });
    let opened: Vec<_> = opened.collect();
    story.tell(LedgerAccountsOpened { opened }, &[], &[]);
}

fn deposit(story: &mut Story) {
    let authorised = SpendAuthorised {
        account: CUSTOMER,
        vault: vault(),
        wallet: WALLET,
        max_cumulative_units: 20_000_000,
        valid_until_s: (START_US / 1_000_000) as u32 + 90 * 86_400,
        nonce: 0,
        session: Hash32([7; 32]),
        signature: Some(EvmSignature([8; 65])),
    };
    story.tell(authorised, &[], &[]);
    let bucket = GrantIssued {
        grant: GrantId(0),
        account: CUSTOMER,
        source: GrantSource::Deposited,
        asset: FOIL,
        amount: Amount(0),
        priority: 50,
        scope: vec![],
        expires_us: None,
        backing: Backing::Vault(vault(), WALLET),
    };
    story.tell(bucket, &[], &[]);
    let vault_asset = story.book(AccountId::SYSTEM, AccountKind::VaultAsset);
    let customer = story.book(CUSTOMER, AccountKind::CustomerDeposited);
    let confirmed = DepositConfirmed {
        key: DepositKey { vault: vault(), tx: tx(1), ordinal: 0 },
        wallet: WALLET,
        units: 5_000_000,
        amount: Amount(5_000_000_000),
        account: Some(CUSTOMER),
        block: 12,
        block_hash: tx(100),
    };
    story.same_command(confirmed, &[(vault_asset, 5_000_000_000), (customer, -5_000_000_000)], &[]);
}

pub fn hold_event(n: usize, input_units: u64, output_units_max: u64, card: &RateCard) -> HoldPlaced {
    let price = card.models[0].price.0;
    let units = i128::from(input_units + output_units_max);
    let amount = Amount((price * units + 1) / 2);
    HoldPlaced {
        hold: HoldId([40 + n as u8; 16]),
        job: JOBS[n],
        account: CUSTOMER,
        asset: FOIL,
        amount,
        slices: vec![Slice { grant: GrantId(0), amount }].into(),
        rate_card_version: card.version,
        rate_card_hash: card.hash(),
        model: MODEL.into(),
        input_units,
        output_units_max,
        deadline_us: START_US + 300_000_000,
        spender: None,
    }
}

pub fn admit(story: &mut Story, n: usize, hold: HoldPlaced) {
    let customer = story.book(CUSTOMER, AccountKind::CustomerDeposited);
    let holds = story.book(AccountId::SYSTEM, AccountKind::HoldsPending);
    let amount = hold.amount.0;
    story.tell(hold, &[], &[(customer, amount), (holds, -amount)]);
    let body = body(n, Hash32([0; 32])).commitment();
    let dispatched =
        JobDispatched { job: JOBS[n], attempt: 0, node: NODE, operator: operator(), body, continues_at: 0 };
    story.same_command(dispatched, &[], &[]);
}

pub fn capture(story: &mut Story, n: usize, held: i128) {
    let customer = story.book(CUSTOMER, AccountKind::CustomerDeposited);
    let holds = story.book(AccountId::SYSTEM, AccountKind::HoldsPending);
    let accrued = story.book(OWNER, AccountKind::OperatorAccrued);
    let revenue = story.book(AccountId::SYSTEM, AccountKind::PlatformRevenue);
    let (cost, share) = (COSTS[n], SHARES[n]);
    let output_units = [1_000, 10][n];
    let captured = UsageCaptured {
        hold: HoldId([40 + n as u8; 16]),
        job: JOBS[n],
        attempt: 0,
        node: NODE,
        operator: operator(),
        outcome: Outcome::Completed,
        input_units: [420, 11][n],
        output_units,
        output_units_worker: output_units,
        output_units_gateway: output_units,
        cost: Amount(cost),
        slices: vec![Slice { grant: GrantId(0), amount: Amount(cost) }].into(),
        operator_share: Amount(share),
        platform_share: Amount(cost - share),
        receipt: receipt_hash(n),
        chain_head: Hash32([30 + n as u8; 32]),
        part: None,
        beyond_hold: None,
    };
    let booked = [(customer, cost), (accrued, -share), (revenue, share - cost)];
    story.tell(captured, &booked, &[(customer, -held), (holds, held)]);
}

fn prompts(story: &mut Story) {
    let card = card(1, 4_001);
    for (n, (input, max)) in [(420, 1_100), (11, 10), (5, 5)].into_iter().enumerate() {
        let hold = hold_event(n, input, max, &card);
        let held = hold.amount.0;
        admit(story, n, hold);
        if n < 2 {
            capture(story, n, held);
            continue;
        }
        let customer = story.book(CUSTOMER, AccountKind::CustomerDeposited);
        let holds = story.book(AccountId::SYSTEM, AccountKind::HoldsPending);
        let voided = HoldVoided { hold: HoldId([42; 16]), reason: VoidReason::OperatorFault };
        story.tell(voided, &[], &[(customer, -held), (holds, held)]);
    }
}

fn settlement(story: &mut Story) {
    let accrued = story.book(OWNER, AccountKind::OperatorAccrued);
    let settling = story.book(OWNER, AccountKind::OperatorSettling);
    let payable = story.book(OWNER, AccountKind::OperatorPayable);
    let vault_asset = story.book(AccountId::SYSTEM, AccountKind::VaultAsset);
    let pot = story.book(AccountId::SYSTEM, AccountKind::PotAsset);
    let platform_units = CHARGED_UNITS - OPERATOR_UNITS;
    let payout =
        |account, address, units| Payout { account, address, cumulative_units: units, added_units: units };
    let closed = BatchClosed {
        short: None,
        batch: BATCH,
        number: 1,
        vault: vault(),
        asset: FOIL,
        cutoff_leaf: story.events.len() as u64,
        rail: Rail::RootClaims,
        charges: vec![Charge { wallet: WALLET, cumulative_units: CHARGED_UNITS, added_units: CHARGED_UNITS }],
        payouts: vec![
            payout(OWNER, PAYEE, OPERATOR_UNITS),
            payout(AccountId::SYSTEM, PLATFORM, platform_units),
        ],
    };
    let amount = i128::from(OPERATOR_UNITS) * 1_000;
    story.tell(closed, &[(accrued, amount), (settling, -amount)], &[]);
    let submitted = BatchSubmitted {
        batch: BATCH,
        payout_root: tx(0),
        root_total_units: 0,
        requests_root: tx(0),
        tlog_size: 0,
        tlog_root: Hash32([0; 32]),
        commitment: tx(0),
    };
    story.tell(submitted, &[], &[]);
    let total = i128::from(CHARGED_UNITS) * 1_000;
    let confirmed = BatchConfirmed {
        batch: BATCH,
        tx: tx(2),
        block: 20,
        block_hash: tx(101),
        charged_units: CHARGED_UNITS,
        amount: Amount(total),
    };
    let legs = [(settling, amount), (payable, -amount), (pot, total), (vault_asset, -total)];
    story.tell(confirmed, &legs, &[]);
    let claimed = PayoutClaimed {
        vault: vault(),
        account: OWNER,
        address: PAYEE,
        units: OPERATOR_UNITS,
        amount: Amount(amount),
        tx: tx(3),
    };
    story.tell(claimed, &[(payable, amount), (pot, -amount)], &[]);
}

fn withdrawal(story: &mut Story) {
    let customer = story.book(CUSTOMER, AccountKind::CustomerDeposited);
    let holds = story.book(AccountId::SYSTEM, AccountKind::HoldsPending);
    let vault_asset = story.book(AccountId::SYSTEM, AccountKind::VaultAsset);
    let voucher = VoucherId([12; 16]);
    let issued = VoucherIssued {
        voucher,
        account: CUSTOMER,
        vault: vault(),
        wallet: WALLET,
        units: 1_000_000,
        amount: Amount(1_000_000_000),
        nonce: 0,
        deadline_s: START_US / 1_000_000 + 600,
    };
    story.tell(issued, &[], &[(customer, 1_000_000_000), (holds, -1_000_000_000)]);
    story.tell(
        VoucherRedeemed { voucher, tx: tx(4) },
        &[(customer, 1_000_000_000), (vault_asset, -1_000_000_000)],
        &[(customer, -1_000_000_000), (holds, 1_000_000_000)],
    );
}

/// The story up to its deposit.
pub fn funded() -> Story {
    let mut story = Story { events: Vec::new(), books: HashMap::new(), key: 0 };
    opening(&mut story);
    deposit(&mut story);
    story
}

/// The whole honest story.
pub fn honest() -> Story {
    let mut story = funded();
    prompts(&mut story);
    settlement(&mut story);
    withdrawal(&mut story);
    story.seal();
    story
}
