//! Epochs from the books to the chain and back: who is charged, who waits, what a thief of the settler's key gets.

use contracts::settlement::{batch_path, read_published};
use contracts::{Address20, EvmKey, Hash32, Payout, Record, SettlementPlan, Settler, SettlerOptions, dev};
use ledger::command::ConfirmDeposit;
use ledger::query;
use protocol::event::EventBody;
use protocol::event::account::SpendAuthorised;
use protocol::event::chain::DepositKey;
use protocol::id::{AccountId, EvmAddress, Word32};
use tokio::sync::watch;

use crate::books::{Books, job_id};
use crate::senders::put_account;
use crate::world::ROOT_DELAY_S;

const PATIENT: SettlerOptions = SettlerOptions { stuck_after_ms: 60_000, give_up_after_ms: 60_000 };

/// A customer with a deposit and a charge of so many tokens.
async fn served(books: &Books, key: &EvmKey, job: u32, tokens: u64) -> AccountId {
    let account = books.link(key, 8_000_000).await;
    books.world.fund(key, 5_000_000).await;
    books.catch_up(&mut books.mirror(0)).await;
    books.serve(account, job, tokens).await;
    account
}

#[tokio::test]
async fn a_settled_epoch_is_in_the_books_and_the_operator_is_paid() {
    let books = Books::open(0).await;
    let mut mirror = books.mirror(0);
    served(&books, &books.world.user, 1, 1_000).await;
    let settlement = books.settlement().await;
    let (batch, done) = settlement.settle_once().await.expect("settled").expect("something was due");
    assert_eq!((done.epoch, done.total), (1, 1_000_000));
    // A crash before the confirmation: the same settlement is found again.
    let again = books.settlement().await.settle_once().await.expect("found").expect("it");
    assert_eq!(again, (batch, done));
    books.catch_up(&mut mirror).await;
    assert_eq!(settlement.settle_once().await.expect("nothing left"), None);
    books.assert_no_drift().await;

    let published = read_published(&batch_path(&books.batches(), 1)).expect("readable").expect("published");
    let claim = published.plan.claim(books.world.operator.address()).expect("it earned");
    dev::increase_time(&books.world.chain, ROOT_DELAY_S.into()).await.expect("later");
    books.world.deployment.claim(&books.world.operator, &claim).await.expect("paid");
    books.catch_up(&mut mirror).await;
    books.assert_no_drift().await;
    let paid = books.world.deployment.token_balance(books.world.operator.address()).await.expect("balance");
    assert_eq!(paid, 800_000 * 1_000_000_000_000);
}

#[tokio::test]
async fn a_stuck_and_replaced_settlement_is_booked_with_both_transactions_and_paid_once() {
    let books = Books::open(0).await;
    let world = &books.world;
    served(&books, &world.user, 1, 1_000).await;
    dev::set_automine(&world.chain, false).await.expect("blocks stop");
    let impatient = SettlerOptions { stuck_after_ms: 100, give_up_after_ms: 60_000 };
    let settlement = books.settlement_with(impatient).await;
    let unstick = async {
        let file = books.data().join("settlements/settle-1.json");
        let mut tick = tokio::time::interval(world.chain.poll_interval());
        while std::fs::read_to_string(&file).map_or(0, |text| text.matches("\"raw\"").count()) < 3 {
            tick.tick().await;
        }
        dev::set_automine(&world.chain, true).await.expect("blocks go on");
        dev::mine(&world.chain, 1).await.expect("mined");
    };
    let (settled, ()) = tokio::join!(settlement.settle_once(), unstick);
    let (batch, done) = settled.expect("settled").expect("due");
    books.catch_up(&mut books.mirror(0)).await;
    let events = books.events().await;
    let replaced: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            EventBody::BatchReplaced(event) if event.batch == batch => Some((event.replaced, event.tx)),
            _ => None,
        })
        .collect();
    assert!(replaced.len() >= 2 && replaced.len() == done.replacements as usize, "{replaced:?}");
    assert!(
        replaced.windows(2).all(|pair| pair[0].1 == pair[1].0),
        "each takes the place of the last: {replaced:?}"
    );
    let confirmed: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            EventBody::BatchConfirmed(event) => Some((event.tx, event.charged_units)),
            _ => None,
        })
        .collect();
    assert_eq!(confirmed, [(Word32(done.mined.tx.0), 1_000_000)]);
    books.assert_no_drift().await;
}

#[tokio::test]
async fn a_wallet_that_cannot_be_charged_does_not_stop_the_others() {
    let books = Books::open(0).await;
    let world = &books.world;
    served(&books, &world.user, 1, 1_000).await;
    // The vault was never told of this one's cap.
    let wallet = EvmAddress(world.other_user.address().0);
    let account = AccountId::of_wallet(wallet);
    books.must(ledger::command::OpenAccount { account }).await;
    let signed = world.sign_cap(&world.other_user, 8_000_000).await;
    let authorised = SpendAuthorised {
        account,
        vault: books.vault(),
        wallet,
        max_cumulative_units: 8_000_000,
        valid_until_s: signed.authorisation.valid_until,
        nonce: 0,
        session: protocol::id::Hash32([9; 32]),
        signature: None,
    };
    books.must(authorised).await;
    world.fund(&world.other_user, 5_000_000).await;
    books.catch_up(&mut books.mirror(0)).await;
    books.serve(account, 2, 2_000).await;

    let settlement = books.settlement().await;
    let (_, done) = settlement.settle_once().await.expect("settled").expect("the first wallet's");
    assert_eq!(done.total, 1_000_000);
    books.catch_up(&mut books.mirror(0)).await;
    assert_eq!(settlement.settle_once().await.expect("it waits"), None);
    world.deployment.authorise(&world.settler, &[signed]).await.expect("told now");
    let (_, done) = settlement.settle_once().await.expect("settled").expect("the second wallet's");
    assert_eq!(done.total, 2_000_000);
    books.catch_up(&mut books.mirror(0)).await;
    books.assert_no_drift().await;
}

#[tokio::test]
async fn a_batch_that_became_too_dear_fails_and_its_amounts_settle_later() {
    let books = Books::open(0).await;
    let world = &books.world;
    served(&books, &world.user, 1, 1_000).await;
    served(&books, &world.other_user, 2, 1_000).await;
    let settlement = books.settlement().await;
    let both = |client: &journal::LedgerClient| {
        let client = client.clone();
        async move { client.read(|state| query::batches(state).len()).await.expect("read") }
    };
    // Between the close and the transaction a wallet leaves with all it has: settler's key and vouchers were stolen.
    let id = protocol::id::BatchId([4; 16]);
    let rail = protocol::event::batch::Rail::RootClaims;
    books.must(ledger::command::CloseBatch { batch: id, vault: books.vault(), rail, without: vec![] }).await;
    take_all(&books, &world.user).await;
    let stale = settlement.settle_once().await.expect_err("the vault would charge less");
    assert_eq!(stale.code(), "chain_plan_stale", "{stale}");
    let state = books.client.read(move |state| query::batch(state, id).map(|batch| batch.state)).await;
    assert_eq!(state.expect("read"), Some(query::BatchState::Failed));
    let (_, done) = settlement.settle_once().await.expect("settled").expect("the other's");
    assert_eq!((done.epoch, done.total, both(&books.client).await), (1, 1_000_000, 2));
}

/// A voucher of the settler's for everything, used.
async fn take_all(books: &Books, key: &EvmKey) {
    let world = &books.world;
    let account = world.deployment.account(key.address()).await.expect("account");
    let deadline = world.chain.head().await.expect("head").timestamp as u32 + 600;
    let voucher = contracts::WithdrawalVoucher {
        account: key.address(),
        units: account.balance,
        nonce: account.withdrawal_nonce,
        deadline,
    };
    let signed = voucher.sign(&world.settler, &world.deployment.domain());
    world.deployment.withdraw(key, key.address(), &signed).await.expect("paid");
}

#[tokio::test]
async fn an_epoch_of_many_wallets_is_settled_in_batches_that_fit() {
    const WALLETS: u64 = 450;
    let books = Books::open(0).await;
    let world = &books.world;
    for index in 0..WALLETS {
        let mut wallet = [0xcd; 20];
        wallet[..8].copy_from_slice(&index.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        let account = AccountId::of_wallet(EvmAddress(wallet));
        put_account(world, Address20(wallet), 1_000_000).await;
        books.must(ledger::command::OpenAccount { account }).await;
        let authorised = SpendAuthorised {
            account,
            vault: books.vault(),
            wallet: EvmAddress(wallet),
            max_cumulative_units: u64::MAX / 2,
            valid_until_s: u32::MAX,
            nonce: 0,
            session: protocol::id::Hash32([9; 32]),
            signature: None,
        };
        books.must(authorised).await;
        let key = DepositKey { vault: books.vault(), tx: Word32(job_word(index)), ordinal: 1 };
        let (block, block_hash) = (1, Word32([1; 32]));
        books
            .must(ConfirmDeposit { key, wallet: EvmAddress(wallet), units: 1_000_000, block, block_hash })
            .await;
        books.serve(account, index as u32, 100).await;
    }
    put_tokens(&books, WALLETS * 1_000_000).await;
    let (stop, stopped) = watch::channel(false);
    let mirror = tokio::spawn(books.mirror(0).run(stopped));
    let settled = books.settlement().await.settle_epoch().await.expect("settled");
    stop.send_replace(true);
    mirror.await.expect("it ended");
    let totals: Vec<(u64, u64)> = settled.iter().map(|(_, done)| (done.epoch, done.total)).collect();
    assert_eq!(totals, [(1, 400 * 100_000), (2, 50 * 100_000)]);
    for (_, done) in &settled {
        assert!(done.mined.gas_used < contracts::chain::TRANSACTION_GAS_MAX / 2, "{done:?}");
    }
    books.assert_no_drift().await;
}

fn job_word(index: u64) -> [u8; 32] {
    let mut word = [2; 32];
    word[..16].copy_from_slice(&job_id(index as u32).0);
    word
}

/// The vault's tokens and its own count of what it owes (slot 5), for accounts that were written into its storage.
async fn put_tokens(books: &Books, units: u64) {
    let (world, vault) = (&books.world, books.world.deployment.manifest().vault);
    dev::mint(&world.deployment, &world.deployer, vault, units).await.expect("minted");
    let (mut word, mut slot) = ([0; 32], [0; 32]);
    word[24..].copy_from_slice(&units.to_be_bytes());
    slot[31] = 5;
    dev::set_storage(&world.chain, vault, Hash32(slot), Hash32(word)).await.expect("set");
}

/// What a thief of the settler's key can do, and what it gets: nothing, when the guardian is awake; users lose what they
/// had signed for and no more, into the operators' pot; the books name the sum.
#[tokio::test]
async fn a_stolen_settler_key_moves_signed_caps_into_the_pot_and_nothing_out_of_it() {
    let books = Books::open(0).await;
    let world = &books.world;
    let account = books.link(&world.user, 2_000_000).await;
    world.fund(&world.user, 5_000_000).await;
    books.catch_up(&mut books.mirror(0)).await;
    let thief = EvmKey::development(9);
    let elsewhere = tempfile::tempdir().expect("a directory");
    let stolen =
        Settler::open(world.deployment.clone(), world.settler.clone(), elsewhere.path(), PATIENT).await;
    let stolen = stolen.expect("the stolen key");
    let records = vec![Record { account: world.user.address(), cumulative_units: 5_000_000 }];
    let payouts = vec![Payout { operator: thief.address(), cumulative_units: 2_000_000 }];
    let plan = SettlementPlan::new(1, records, payouts, Hash32([6; 32]), 0).expect("a plan");
    let done = stolen.settle(&plan).await.expect("it is the settler");
    assert_eq!(done.total, 2_000_000, "the signed cap, not the deposit");

    world.deployment.disable_root(&world.guardian, 1).await.expect("refused in time");
    let other = EvmKey::development(8);
    world.deployment.appoint_settler(&world.deployer, other.address()).await.expect("another settler");
    let again = SettlementPlan::new(2, plan.records.clone(), vec![], Hash32([6; 32]), 0).expect("a plan");
    assert!(stolen.settle(&again).await.is_err(), "the stolen key is nobody's now");
    dev::increase_time(&world.chain, ROOT_DELAY_S.into()).await.expect("later");
    let claim = plan.claim(thief.address()).expect("its own root");
    let error = world.deployment.claim(&thief, &claim).await.expect_err("disabled");
    assert!(error.to_string().contains("RootIsDisabled"), "{error}");
    assert_eq!(world.deployment.token_balance(thief.address()).await.expect("balance"), 0);

    let mut mirror = books.mirror(0);
    books.catch_up(&mut mirror).await;
    let [(booked, held), (pot_booked, pot)] = books.drift().await;
    assert_eq!((booked - held, pot - pot_booked), (2_000_000, 2_000_000), "named to the unit");
    assert_eq!(books.available(account).await, 2_000_000, "the books know of no charge");
    let exit =
        contracts::Exit::open(world.chain.clone(), world.deployment.manifest().vault).await.expect("vault");
    exit.request(&world.user).await.expect("requested");
    dev::increase_time(&world.chain, crate::world::EXIT_DELAY_S.into()).await.expect("later");
    exit.finalize(&world.user, world.user.address()).await.expect("the rest comes out");
    let saved = world.deployment.token_balance(world.user.address()).await.expect("balance");
    assert_eq!(saved, 3_000_000 * 1_000_000_000_000);
}
