//! Settlements: what is debited, what is paid, and what a crash or a second settler can do (nothing).

use contracts::{
    ChainFact, Hash32, Payout, Record, SettlementPlan, Settler, SettlerOptions, commitment, dev,
};

use crate::world::{ROOT_DELAY_S, World};

const PATIENT: SettlerOptions = SettlerOptions { stuck_after_ms: 60_000, give_up_after_ms: 60_000 };

impl World {
    async fn open_settler(&self, options: SettlerOptions) -> Settler {
        let opened =
            Settler::open(self.deployment.clone(), self.settler.clone(), self.directory.path(), options);
        opened.await.expect("the settler's key")
    }

    fn records(&self, units: u64) -> Vec<Record> {
        vec![Record { account: self.user.address(), cumulative_units: units }]
    }

    fn plan(&self, epoch: u64, charged: u64, earned: u64) -> SettlementPlan {
        let payouts = vec![
            Payout { operator: self.operator.address(), cumulative_units: earned },
            Payout { operator: self.guardian.address(), cumulative_units: charged - earned },
        ];
        let commitment = commitment(Hash32([1; 32]), epoch * 100, Hash32([2; 32]));
        SettlementPlan::new(epoch, self.records(charged), payouts, commitment, 0).expect("a plan")
    }
}

#[tokio::test]
async fn a_settlement_pays_operators_by_our_merkle_root() {
    let world = World::new(0).await;
    world.fund(&world.user, 10_000_000).await;
    world.authorise(&world.user, 8_000_000).await;
    let settler = world.open_settler(PATIENT).await;
    let plan = world.plan(1, 3_000_000, 2_000_000);
    let done = settler.settle(&plan).await.expect("settled");
    assert_eq!((done.total, done.root, done.replacements), (3_000_000, plan.root, 0));
    assert_eq!(settler.settle(&plan).await.expect("the same again"), done);
    assert_eq!(settler.pending_epoch().expect("directory"), None);

    let claim = plan.claim(world.operator.address()).expect("it earned");
    let early = world.deployment.claim(&world.user, &claim).await.expect_err("the delay");
    assert!(early.to_string().contains("NotActiveYet"), "{early}");
    dev::increase_time(&world.chain, ROOT_DELAY_S.into()).await.expect("later");
    world.deployment.claim(&world.user, &claim).await.expect("anybody may submit");
    let twice = world.deployment.claim(&world.user, &claim).await.expect_err("paid");
    assert!(twice.to_string().contains("NothingToClaim"), "{twice}");
    let paid = world.deployment.token_balance(world.operator.address()).await.expect("balance");
    assert_eq!(paid, 2_000_000 * 1_000_000_000_000);

    let number = world.chain.head().await.expect("head").number;
    let holdings = world.deployment.holdings_at(number).await.expect("holdings");
    assert_eq!((holdings.vault_units, holdings.pot_units), (7_000_000, 1_000_000));
    assert_eq!((holdings.funded, holdings.claimed_total, holdings.last_epoch), (3_000_000, 2_000_000, 1));
    let facts: Vec<ChainFact> =
        world.poll(&mut world.watcher()).await.events.into_iter().map(|e| e.fact).collect();
    let settled =
        facts.iter().position(|fact| matches!(fact, ChainFact::Settled { epoch: 1, total: 3_000_000, .. }));
    let (epoch, account) = (1, world.user.address());
    let charged = ChainFact::Charged { epoch, account, asked: 3_000_000, cumulative: 3_000_000 };
    assert_eq!(facts[settled.expect("the event") + 1], charged);
}

#[tokio::test]
async fn a_short_account_is_clamped_and_named() {
    let world = World::new(0).await;
    world.fund(&world.user, 10_000_000).await;
    world.fund(&world.other_user, 1_000_000).await;
    world.authorise(&world.user, 4_000_000).await;
    world.authorise(&world.other_user, 50_000_000).await;
    let mut records = world.records(9_000_000);
    records.push(Record { account: world.other_user.address(), cumulative_units: 3_000_000 });
    records.push(Record { account: world.guardian.address(), cumulative_units: 1 });

    let preview = world.deployment.preview_settle(&records).await.expect("preview");
    assert_eq!((preview.epoch, preview.total), (1, 5_000_000));
    let after: Vec<u64> = preview.accounts.iter().map(|account| account.charged_after).collect();
    assert_eq!(after, [4_000_000, 1_000_000, 0], "by cap, by balance, by no cap at all");

    let settler = world.open_settler(PATIENT).await;
    let plan = |min_total| {
        SettlementPlan::new(1, records.clone(), vec![], Hash32([1; 32]), min_total).expect("plan")
    };
    let stale = settler.settle(&plan(5_000_001)).await.expect_err("it demands more");
    assert_eq!(stale.code(), "chain_plan_stale", "{stale}");
    assert_eq!(settler.pending_epoch().expect("directory"), None);
    let done = settler.settle(&plan(preview.total)).await.expect("settled");
    assert_eq!((done.total, done.root), (5_000_000, Hash32::ZERO));

    let events = world.poll(&mut world.watcher()).await.events;
    let short = |fact: &ChainFact| matches!(fact, ChainFact::Shortfall { .. });
    assert_eq!(events.iter().filter(|event| short(&event.fact)).count(), 3);
    let charged: Vec<u64> = events
        .iter()
        .filter_map(|event| match event.fact {
            ChainFact::Charged { cumulative, .. } => Some(cumulative),
            _ => None,
        })
        .collect();
    assert_eq!(charged.iter().sum::<u64>(), 5_000_000, "{charged:?}");
}

#[tokio::test]
async fn after_a_crash_the_same_bytes_go_out() {
    let world = World::new(0).await;
    world.fund(&world.user, 10_000_000).await;
    world.authorise(&world.user, 8_000_000).await;
    let plan = world.plan(1, 3_000_000, 2_000_000);
    world.open_settler(PATIENT).await.prepare(&plan).await.expect("on disk");
    let stored = std::fs::read_to_string(world.directory.path().join("settle-1.json")).expect("the file");
    assert_eq!(world.deployment.last_epoch().await.expect("epoch"), 0, "nothing was sent");

    let restarted = world.open_settler(PATIENT).await;
    assert_eq!(restarted.pending_epoch().expect("directory"), Some(1));
    let done = restarted.resume().await.expect("finished").expect("there was one");
    assert!(stored.contains(&done.mined.tx.to_string()), "the transaction of before the crash");
    assert_eq!(restarted.resume().await.expect("nothing left"), None);

    // A crash after the transaction was mined and before the file was removed.
    std::fs::write(world.directory.path().join("settle-1.json"), stored).expect("as before");
    assert_eq!(restarted.resume().await.expect("found").expect("it"), done);
    assert_eq!(world.deployment.last_epoch().await.expect("epoch"), 1);
}

#[tokio::test]
async fn a_stuck_settlement_is_replaced_with_higher_fees() {
    let world = World::new(0).await;
    world.fund(&world.user, 10_000_000).await;
    world.authorise(&world.user, 8_000_000).await;
    dev::set_automine(&world.chain, false).await.expect("blocks stop");
    let impatient = SettlerOptions { stuck_after_ms: 50, give_up_after_ms: 60_000 };
    let settler = world.open_settler(impatient).await;
    let plan = world.plan(1, 3_000_000, 2_000_000);
    let file = world.directory.path().join("settle-1.json");
    let unstick = async {
        // Blocks go on once the file shows that a replacement is signed and on its way.
        while std::fs::read_to_string(&file).map_or(0, |text| text.matches("\"raw\"").count()) < 3 {
            tokio::time::sleep(world.chain.poll_interval()).await;
        }
        dev::set_automine(&world.chain, true).await.expect("blocks go on");
        dev::mine(&world.chain, 1).await.expect("mined");
    };
    let both = async { tokio::join!(settler.settle(&plan), unstick).0 };
    let done = tokio::time::timeout(std::time::Duration::from_secs(60), both).await;
    let done = done.expect("replaced in time").expect("settled");
    assert!(done.replacements >= 2, "{done:?}");
    assert_eq!(done.total, 3_000_000);
    assert_eq!(world.deployment.account(world.user.address()).await.expect("account").charged, 3_000_000);
}

#[tokio::test]
async fn a_settlement_whose_nonce_was_taken_is_signed_again() {
    let world = World::new(0).await;
    world.fund(&world.user, 10_000_000).await;
    world.authorise(&world.user, 8_000_000).await;
    let settler = world.open_settler(PATIENT).await;
    let plan = world.plan(1, 3_000_000, 2_000_000);
    settler.prepare(&plan).await.expect("on disk");
    // Another transaction of the settler's key takes the nonce.
    let cap = world.sign_cap(&world.user, 8_500_000).await;
    world.deployment.authorise(&world.settler, &[cap]).await.expect("another transaction");
    assert_eq!(settler.send(1).await.expect("settled").total, 3_000_000);
}

#[tokio::test]
async fn a_second_settler_cannot_settle_an_epoch_twice() {
    let world = World::new(0).await;
    world.fund(&world.user, 10_000_000).await;
    world.authorise(&world.user, 8_000_000).await;
    let ours = world.open_settler(PATIENT).await;
    ours.prepare(&world.plan(1, 3_000_000, 2_000_000)).await.expect("on disk");
    let elsewhere = tempfile::TempDir::new().expect("a directory");
    let theirs =
        Settler::open(world.deployment.clone(), world.settler.clone(), elsewhere.path(), PATIENT).await;
    theirs.expect("the same key").settle(&world.plan(1, 2_000_000, 1_000_000)).await.expect("first");
    let error = ours.resume().await.expect_err("the epoch is taken");
    assert_eq!(error.code(), "chain_epoch_taken", "{error}");
    assert_eq!(world.deployment.account(world.user.address()).await.expect("account").charged, 2_000_000);
    let stranger =
        Settler::open(world.deployment.clone(), world.user.clone(), elsewhere.path(), PATIENT).await;
    assert_eq!(stranger.expect_err("not the settler").code(), "chain_wrong_signer");
}

#[tokio::test]
async fn the_guardian_refuses_a_root_before_it_is_active() {
    let world = World::new(0).await;
    world.fund(&world.user, 10_000_000).await;
    world.authorise(&world.user, 8_000_000).await;
    let plan = world.plan(1, 3_000_000, 3_000_000);
    world.open_settler(PATIENT).await.settle(&plan).await.expect("settled");
    world.deployment.disable_root(&world.guardian, 1).await.expect("refused");
    dev::increase_time(&world.chain, ROOT_DELAY_S.into()).await.expect("later");
    let claim = plan.claim(world.operator.address()).expect("in the root");
    let error = world.deployment.claim(&world.operator, &claim).await.expect_err("disabled");
    assert!(error.to_string().contains("RootIsDisabled"), "{error}");
    assert!(world.deployment.payout_root(1).await.expect("root").expect("posted").disabled);
}

#[tokio::test]
async fn a_contract_wallet_signs_through_the_chain() {
    let world = World::new(0).await;
    let wallet = contracts::Address20([0x42; 20]);
    world.fund(&world.user, 2_000_000).await;
    let signed = contracts::SignedAuthorisation {
        authorisation: contracts::SpendAuthorisation {
            account: wallet,
            ..world.sign_cap(&world.user, 1_000_000).await.authorisation
        },
        signature: vec![1, 2, 3],
    };
    let domain = world.deployment.domain();
    assert!(signed.verify(&world.chain, &domain).await.is_err(), "no code there, no key's signature");
    // Wallets that revert, have an invalid opcode, answer nothing, or answer no.
    for refusing in ["5f5ffd", "fe", "00", "60205ff3"] {
        dev::set_code(&world.chain, wallet, &hex(refusing)).await.expect("a wallet");
        let error = signed.verify(&world.chain, &domain).await.expect_err("it does not stand for it");
        assert_eq!(error.code(), "chain_wrong_signer", "{refusing}: {error}");
    }
    // Answers every question with ERC-1271's yes.
    dev::set_code(&world.chain, wallet, &hex("631626ba7e60e01b5f5260205ff3")).await.expect("a wallet");
    signed.verify(&world.chain, &domain).await.expect("the wallet says yes");
    world.deployment.authorise(&world.settler, &[signed]).await.expect("the vault agrees");
    assert_eq!(world.deployment.account(wallet).await.expect("account").cap, 1_000_000);
}

#[tokio::test]
async fn a_log_head_is_anchored_and_only_grows() {
    let world = World::new(0).await;
    let (origin, root) = (Hash32::keccak(b"log"), Hash32([3; 32]));
    world.deployment.anchor(&world.settler, origin, 10, root).await.expect("anchored");
    let anchored = world.deployment.anchored(world.settler.address(), origin).await.expect("read");
    assert_eq!(anchored, Some((10, root)));
    let error = world.deployment.anchor(&world.settler, origin, 10, root).await.expect_err("no growth");
    assert!(error.to_string().contains("NotGrowing"), "{error}");
}

fn hex(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
    (0..digits.len()).step_by(2).map(byte).collect()
}
