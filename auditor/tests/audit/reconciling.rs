//! Log against chain: equal, drifting, pending.

use crate::story::*;
use auditor::chain::*;
use auditor::checks::CheckKind;
use auditor::reconcile::{ReconcileOptions, reconcile};
use auditor::report::Outcome;
use auditor::settlement::payout_root;
use auditor::{Report, verify};
use protocol::asset::VaultRef;
use protocol::event::EventBody;
use protocol::id::*;

/// A chain as a table.
#[derive(Clone)]
struct Table {
    block: u64,
    holdings: Holdings,
    wallet: WalletRecord,
    facts: Vec<ChainEvent>,
}

impl ChainReader for Table {
    fn block(&self) -> Result<Block, ChainUnavailable> {
        Ok(Block { number: self.block, hash: tx(200), timestamp_s: 1 })
    }
    fn holdings(&self, _: VaultRef) -> Result<Holdings, ChainUnavailable> {
        Ok(self.holdings)
    }
    fn wallet(&self, _: VaultRef, _: EvmAddress) -> Result<WalletRecord, ChainUnavailable> {
        Ok(self.wallet)
    }
    fn facts(&self) -> Result<Vec<ChainEvent>, ChainUnavailable> {
        Ok(self.facts.clone())
    }
}

struct Away;

impl ChainReader for Away {
    fn block(&self) -> Result<Block, ChainUnavailable> {
        Err(ChainUnavailable("no node".into()))
    }
    fn holdings(&self, _: VaultRef) -> Result<Holdings, ChainUnavailable> {
        Err(ChainUnavailable("no node".into()))
    }
    fn wallet(&self, _: VaultRef, _: EvmAddress) -> Result<WalletRecord, ChainUnavailable> {
        Err(ChainUnavailable("no node".into()))
    }
    fn facts(&self) -> Result<Vec<ChainEvent>, ChainUnavailable> {
        Err(ChainUnavailable("no node".into()))
    }
}

fn fact(block: u64, tx: Word32, fact: ChainFact) -> ChainEvent {
    ChainEvent { vault: vault(), block, tx, ordinal: 0, fact }
}

/// The chain that the honest story mirrors: 5 in, 1 out, 2882 units charged, the operator's part claimed.
fn honest_chain(story: &Story) -> Table {
    let commitment = story.events.iter().find_map(|event| match &event.body {
        EventBody::BatchSubmitted(e) => Some(e.commitment),
        _ => None,
    });
    let platform = CHARGED_UNITS - OPERATOR_UNITS;
    let settled = ChainFact::Settled {
        number: 1,
        total_units: CHARGED_UNITS,
        root: payout_root([(PAYEE, OPERATOR_UNITS), (PLATFORM, platform)]),
        root_total_units: CHARGED_UNITS,
        commitment: commitment.unwrap(),
    };
    let balance_units = 4_000_000 - CHARGED_UNITS;
    Table {
        block: 100,
        holdings: Holdings {
            vault_units: balance_units,
            pot_units: platform,
            funded_units: CHARGED_UNITS,
            claimed_units: OPERATOR_UNITS,
            last_number: 1,
        },
        wallet: WalletRecord { balance_units, charged_units: CHARGED_UNITS },
        facts: vec![
            fact(12, tx(1), ChainFact::Deposited { wallet: WALLET, units: 5_000_000 }),
            fact(20, tx(2), settled),
            fact(22, tx(3), ChainFact::Claimed { address: PAYEE, units: OPERATOR_UNITS }),
            fact(24, tx(4), ChainFact::Withdrawn { wallet: WALLET, units: 1_000_000, nonce: 0 }),
        ],
    }
}

fn reconciled(story: &Story, chain: &dyn ChainReader) -> Report {
    let directory = tempfile::tempdir().unwrap();
    story.write(directory.path());
    let directory = directory.path().to_owned();
    reconcile(&ReconcileOptions { directory, policy: None, chain, confirmations: 5 }).unwrap()
}

#[test]
fn the_honest_chain_has_no_drift() {
    let story = honest();
    let report = reconciled(&story, &honest_chain(&story));
    assert_eq!(report.exit_code, 0, "{:#?}", report.checks);
    assert!(report.drift.iter().all(|line| line.drift == "0"), "{:#?}", report.drift);
    let figures: Vec<_> = report.drift.iter().map(|line| (line.what.as_str(), line.log.as_str())).collect();
    assert_eq!(figures, [("vault", "3997118"), ("pot", "577")]);
}

/// Changes the chain; the check must fail with exit 1.
fn drifts(kind: CheckKind, change: impl FnOnce(&mut Table)) {
    let story = honest();
    let mut chain = honest_chain(&story);
    change(&mut chain);
    let report = reconciled(&story, &chain);
    assert_eq!(report.exit_code, 1, "{}: {:#?}", kind.id(), report.checks);
    assert_eq!(report.check(kind).unwrap().result, Outcome::Fail, "{}", kind.id());
}

#[test]
fn every_difference_is_found() {
    drifts(CheckKind::VaultBalance, |chain| chain.holdings.vault_units -= 1);
    drifts(CheckKind::Pot, |chain| chain.holdings.pot_units += 1);
    drifts(CheckKind::WalletBalances, |chain| chain.wallet.balance_units += 1);
    drifts(CheckKind::WalletBalances, |chain| chain.wallet.charged_units += 1);
    drifts(CheckKind::ChainDeposits, |chain| chain.facts.retain(|fact| fact.tx != tx(1)));
    drifts(CheckKind::ChainSettlements, |chain| chain.facts.retain(|fact| fact.tx != tx(2)));
    drifts(CheckKind::ChainClaims, |chain| chain.facts.retain(|fact| fact.tx != tx(3)));
    drifts(CheckKind::ChainWithdrawals, |chain| chain.facts.retain(|fact| fact.tx != tx(4)));
    drifts(CheckKind::ChainDeposits, |chain| {
        let unknown = ChainFact::Deposited { wallet: WALLET, units: 7 };
        chain.facts.push(fact(30, tx(5), unknown));
    });
    drifts(CheckKind::ChainSettlements, |chain| {
        let ChainFact::Settled { commitment, .. } = &mut chain.facts[1].fact else { unreachable!() };
        *commitment = tx(77);
    });
    drifts(CheckKind::ChainSettlements, |chain| {
        let ChainFact::Settled { root, .. } = &mut chain.facts[1].fact else { unreachable!() };
        *root = tx(77);
    });
}

#[test]
fn a_young_deposit_is_pending_and_explains_its_drift() {
    let story = honest();
    let mut chain = honest_chain(&story);
    chain.facts.push(fact(98, tx(5), ChainFact::Deposited { wallet: WALLET, units: 7 }));
    chain.holdings.vault_units += 7;
    chain.wallet.balance_units += 7;
    let report = reconciled(&story, &chain);
    assert_eq!(report.exit_code, 0, "{:#?}", report.checks);
    assert_eq!((report.drift[0].drift.as_str(), report.drift[0].pending.as_str()), ("7", "7"));
}

#[test]
fn at_an_earlier_block_what_came_later_does_not_count() {
    let story = honest();
    let mut chain = honest_chain(&story);
    chain.block = 21;
    chain.holdings =
        Holdings { vault_units: 5_000_000 - CHARGED_UNITS, pot_units: CHARGED_UNITS, ..chain.holdings };
    chain.wallet.balance_units = 5_000_000 - CHARGED_UNITS;
    let report = reconciled(&story, &chain);
    assert_eq!(report.exit_code, 0, "{:#?}", report.checks);
}

#[test]
fn without_a_node_it_is_inconclusive() {
    assert_eq!(reconciled(&honest(), &Away).exit_code, 3);
}

#[test]
fn heads_on_the_chain_are_compared_by_verify() {
    let story = honest();
    let directory = tempfile::tempdir().unwrap();
    story.write(directory.path());
    std::fs::remove_file(directory.path().join("policy")).unwrap();
    let origin = auditor::settlement::origin_hash(crate::log::ORIGIN);
    let entries = crate::log::entries_of(&story.events);
    let hashes: Vec<Hash32> = entries[..7].iter().map(|entry| protocol::proof::leaf_hash(entry)).collect();
    let good = crate::log::root(&hashes);
    for (root, size, code) in [(good, 7, 3), (Hash32([1; 32]), 7, 4), (good, 7_000, 4)] {
        let mut chain = honest_chain(&story);
        chain.facts.push(fact(90, tx(9), ChainFact::Anchored { origin, size, root }));
        let options = verify::VerifyOptions {
            directory: directory.path().to_owned(),
            policy: None,
            since: None,
            chain: Some(&chain),
        };
        let report = verify::verify(&options).unwrap();
        // No policy: the signature stays unchecked, hence 3 at best.
        assert_eq!(report.exit_code, code, "{:#?}", report.checks);
    }
}
