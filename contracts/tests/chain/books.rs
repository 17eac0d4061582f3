//! A chain with a real ledger beside it: nats-server, the journal, the mirror and the settlement role between them.

use std::path::Path;

use futures::StreamExt;

use contracts::mirror::{Mirror, MirrorOptions};
use contracts::settlement::{CheckpointSource, SettlementOptions, SettlementRun};
use contracts::{Address20, Deployment, EvmKey, Hash32, Settler, SettlerOptions, dev};
use journal::auth::{Role, connect};
use journal::server::{NatsServer, NatsServerOptions, PortChoice};
use journal::stream::init_streams;
use journal::{Journal, JournalOptions, LedgerClient, SubmitError, Until};
use ledger::command::{Admit, Capture, Command, CommandBody, OpenAccount, PublishRateCard};
use ledger::query;
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId, VaultRef};
use protocol::event::account::{AccountKind, SpendAuthorised};
use protocol::event::chain::VaultRegistered;
use protocol::event::job::Outcome;
use protocol::event::node::{NodeRegistered, OperatorRegistered};
use protocol::event::policy::{NetworkOpened, Settings};
use protocol::event::{Actor, EventBody};
use protocol::id::{
    AccountId, EvmAddress, Hash32 as LogHash, HoldId, IdempotencyKey, JobId, NodeId, OperatorId, SealingKey,
};
use protocol::rate::{ModelRate, ProofClass, RateCard, Unit};

use crate::world::{World, repository_root};

pub const MODEL: &str = "small";
pub const NODE: NodeId = NodeId([3; 16]);
const SECOND_US: u64 = 1_000_000;
/// Base units of a vault unit.
pub const UNIT: i128 = 1_000;
/// Vault units a token costs.
pub const PRICE_UNITS: i128 = 1_000;

pub struct Books {
    pub world: World,
    pub client: LedgerClient,
    journal: Journal,
    _server: NatsServer,
    data: tempfile::TempDir,
}

/// A checkpoint that covers everything: the transparency log is another room's.
pub struct Covering;

impl CheckpointSource for Covering {
    async fn covering(&self, size: u64) -> Result<(u64, LogHash), String> {
        Ok((size, LogHash([7; 32])))
    }
}

impl Books {
    pub async fn open(confirmations: u64) -> Books {
        Self::on(World::new(confirmations).await).await
    }

    pub async fn on(world: World) -> Books {
        let data = tempfile::tempdir().expect("a directory");
        let binary = repository_root().join(".tools/bin/nats-server");
        let binary = std::env::var_os("COUNTERFOIL_NATS_SERVER").map_or(binary, Into::into);
        let options =
            NatsServerOptions { binary, data_dir: data.path().join("broker"), port: PortChoice::Any };
        let server = NatsServer::start(options).await.expect("nats-server starts");
        let init = server.keys().init_credentials().expect("credentials");
        let init = connect(&server.url(), &init).await.expect("connected");
        init_streams(&init).await.expect("streams");
        let writer = server.keys().credentials(Role::Writer).clone();
        let mut options = JournalOptions::new(server.url(), writer, data.path().join("ledger"));
        options.genesis = Some(genesis());
        let journal = Journal::open(options).await.expect("a log");
        let books = Books { world, client: journal.client(), journal, _server: server, data };
        books.register().await;
        books
    }

    async fn register(&self) {
        let manifest = self.world.deployment.manifest();
        self.must(VaultRegistered {
            vault: self.vault(),
            payouts: EvmAddress(manifest.payouts.0),
            token: EvmAddress(manifest.token.0),
            asset: AssetId(0),
            deployed_block: manifest.deployed_block,
            coordinator: EvmAddress(manifest.coordinator.0),
            platform: EvmAddress(self.world.guardian.address().0),
        })
        .await;
        self.must(PublishRateCard { card: rate_card() }).await;
        let (account, operator) = (AccountId([9; 16]), OperatorId([2; 32]));
        self.must(OpenAccount { account }).await;
        let payout_address = EvmAddress(self.world.operator.address().0);
        self.must(OperatorRegistered { operator, account, payout_address }).await;
        let models = vec![MODEL.to_owned()];
        let sealing_key = SealingKey([1; 32]);
        self.must(NodeRegistered { node: NODE, operator, models, slots: 64, sealing_key }).await;
    }

    pub fn vault(&self) -> VaultRef {
        let manifest = self.world.deployment.manifest();
        VaultRef { chain_id: manifest.chain_id, vault: EvmAddress(manifest.vault.0) }
    }

    pub async fn submit(&self, body: impl Into<CommandBody>) -> Result<journal::Outcome, SubmitError> {
        let body = body.into();
        let key = IdempotencyKey::internal("test", &[format!("{body:?}").as_bytes()]);
        self.client.submit(Command::new(key, Actor::Admin, body)).await
    }

    pub async fn must(&self, body: impl Into<CommandBody>) -> journal::Outcome {
        self.submit(body).await.unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn mirror(&self, confirmations: u64) -> Mirror {
        self.mirror_through(self.world.deployment.clone(), confirmations)
    }

    pub fn mirror_through(&self, deployment: Deployment, confirmations: u64) -> Mirror {
        let state_file = self.data.path().join("watcher.json");
        let origin = Hash32::keccak(b"log");
        let client = self.client.clone();
        let options = MirrorOptions { deployment, confirmations, state_file, client, origin };
        Mirror::open(options).expect("a mirror")
    }

    pub async fn settlement(&self) -> SettlementRun<Covering> {
        self.settlement_with(SettlerOptions { stuck_after_ms: 60_000, give_up_after_ms: 60_000 }).await
    }

    pub async fn settlement_with(&self, patience: SettlerOptions) -> SettlementRun<Covering> {
        let deployment = self.world.deployment.clone();
        let directory = self.data.path().join("settlements");
        let settler =
            Settler::open(deployment.clone(), self.world.settler.clone(), &directory, patience).await;
        SettlementRun::new(SettlementOptions {
            deployment,
            settler: settler.expect("the settler's key"),
            client: self.client.clone(),
            checkpoints: Covering,
            directory: self.batches(),
        })
    }

    pub fn batches(&self) -> std::path::PathBuf {
        self.data.path().join("batches")
    }

    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Opens the wallet's account, signs its cap on the chain and books it.
    pub async fn link(&self, key: &EvmKey, cap_units: u64) -> AccountId {
        let wallet = EvmAddress(key.address().0);
        let account = AccountId::of_wallet(wallet);
        self.must(OpenAccount { account }).await;
        let signed = self.world.sign_cap(key, cap_units).await;
        let authorised = SpendAuthorised {
            account,
            vault: self.vault(),
            wallet,
            max_cumulative_units: cap_units,
            valid_until_s: signed.authorisation.valid_until,
            nonce: signed.authorisation.nonce,
            session: LogHash([9; 32]),
            signature: None,
        };
        self.must(authorised).await;
        self.world.deployment.authorise(&self.world.settler, &[signed]).await.expect("authorised");
        account
    }

    /// Holds for a job of so many tokens.
    pub async fn admit(&self, account: AccountId, job: u32, tokens: u64) -> Result<JobId, SubmitError> {
        let id = job_id(job);
        let admit = Admit {
            hold: HoldId(id.0),
            job: id,
            account,
            model: MODEL.to_owned(),
            input_units: 1,
            output_units_max: tokens - 1,
            deadline_us: now_us() + 60 * SECOND_US,
            node: NODE,
            body: LogHash([5; 32]),
            spender: None,
        };
        self.submit(admit).await.map(|_| id)
    }

    /// Charges an admitted job for all its tokens.
    pub async fn capture(&self, job: JobId, tokens: u64) {
        self.must(Capture {
            job,
            attempt: 0,
            outcome: Outcome::Completed,
            input_units: 1,
            output_units_worker: tokens - 1,
            output_units_gateway: tokens - 1,
            receipt: LogHash(Hash32::keccak(&job.0).0),
            chain_head: LogHash([8; 32]),
            part: None,
        })
        .await;
    }

    /// A job from hold to charge.
    pub async fn serve(&self, account: AccountId, job: u32, tokens: u64) {
        let id = self.admit(account, job, tokens).await.unwrap_or_else(|error| panic!("{error}"));
        self.capture(id, tokens).await;
    }

    /// What an account can spend, in vault units.
    pub async fn available(&self, account: AccountId) -> i128 {
        let now = now_us();
        let balances = self.client.read(move |state| query::balance(state, account, now)).await;
        balances.expect("read").first().map_or(0, |balance| balance.available.0 / UNIT)
    }

    /// What an account owes, in vault units.
    pub async fn owed(&self, account: AccountId) -> i128 {
        let now = now_us();
        let balances = self.client.read(move |state| query::balance(state, account, now)).await;
        balances.expect("read").first().map_or(0, |balance| balance.owed.0 / UNIT)
    }

    /// Books against chain at its newest block: vault and pot in vault units, books first.
    pub async fn drift(&self) -> [(i128, i128); 2] {
        let lines = self.client.read(query::trial_balance).await.expect("read");
        let booked = |kind: AccountKind| {
            let of = lines.iter().filter(|line| line.kind == kind);
            of.map(|line| (line.debits_posted.0 - line.credits_posted.0) / UNIT).sum::<i128>()
        };
        let head = self.world.chain.head().await.expect("head").number;
        let held = self.world.deployment.holdings_at(head).await.expect("holdings");
        [
            (booked(AccountKind::VaultAsset), i128::from(held.vault_units)),
            (booked(AccountKind::PotAsset), i128::from(held.pot_units)),
        ]
    }

    /// What `audit reconcile` calls zero drift: the sums, and every wallet's balance and charge.
    pub async fn assert_no_drift(&self) {
        for (what, (booked, held)) in ["vault", "pot"].into_iter().zip(self.drift().await) {
            assert_eq!(booked, held, "{what}: books and chain");
        }
        let vault = self.vault();
        let wallets = self.client.read(move |state| query::wallets(state, vault)).await.expect("read");
        for wallet in wallets {
            let account = self.world.deployment.account(Address20(wallet.wallet.0)).await.expect("account");
            let balance = wallet.deposited_units - wallet.withdrawn_units - wallet.charged_units;
            assert_eq!(
                (balance, wallet.charged_units),
                (account.balance, account.charged),
                "wallet {}",
                wallet.wallet
            );
        }
    }

    /// Everything in the log.
    pub async fn events(&self) -> Vec<EventBody> {
        let last = self.client.position().borrow().commit;
        let commits = self.journal.reader().from_commit(1, Until::Commit(last));
        let commits: Vec<_> = commits.collect().await;
        let events = commits.into_iter().flat_map(|commit| commit.expect("readable").events);
        events.map(|event| event.body).collect()
    }

    /// Mines until everything is deep enough and looks.
    pub async fn catch_up(&self, mirror: &mut Mirror) {
        let confirmations = self.world.chain.config().confirmations;
        dev::mine(&self.world.chain, confirmations + 1).await.expect("mined");
        mirror.look().await.expect("the chain answers");
    }
}

pub fn job_id(job: u32) -> JobId {
    let mut id = [1; 16];
    id[..4].copy_from_slice(&job.to_be_bytes());
    JobId(id)
}

pub fn now_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_micros() as u64
}

fn rate_card() -> RateCard {
    let rate = ModelRate {
        model: MODEL.to_owned(),
        weights: LogHash([1; 32]),
        tokenizer: LogHash([2; 32]),
        template: LogHash([3; 32]),
        licence: "Apache-2.0".to_owned(),
        proof_class: ProofClass::ReExecutable,
        asset: AssetId(0),
        unit: Unit::Token,
        price: Amount(PRICE_UNITS * UNIT),
        per_units: 1,
        operator_share_ppm: 800_000,
        context_tokens: 1_000_000,
    };
    RateCard { version: 1, effective_us: 0, headroom_ppm: 0, models: vec![rate] }
}

fn genesis() -> NetworkOpened {
    NetworkOpened {
        origin: "counterfoil.example/chain/0".into(),
        preset: "test".into(),
        preset_hash: LogHash([1; 32]),
        assets: vec![Asset { id: AssetId(0), symbol: "FOIL".into(), ledger_scale: 9, chain_scale: Some(18) }],
        settings: Settings {
            epoch_us: 6 * 3_600 * SECOND_US,
            hold_grace_us: SECOND_US,
            job_deadline_us_max: 600 * SECOND_US,
            idempotency_us: 24 * 3_600 * SECOND_US,
            settle_units_min: 0,
            voucher_us: 3_600 * SECOND_US,
            authorisation_margin_epochs: 2,
            capture_tolerance_ppm: None,
        },
    }
}
