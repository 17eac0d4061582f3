//! The fold checks what it reads, and files follow from it to the last digit.

use projector::export::{Provenance, hledger, postings};
use projector::statements::Statement;
use projector::{Books, FoldError, trial_balance};
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId};
use protocol::event::account::{AccountKind, AccountOpened, LedgerAccountsOpened, OpenedLedgerAccount};
use protocol::event::grant::{Backing, GrantIssued, GrantSource};
use protocol::event::policy::{NetworkOpened, Settings};
use protocol::event::*;
use protocol::id::*;

const ALICE: AccountId = AccountId([1; 16]);

fn event(leaf: u64, body: impl Into<EventBody>, postings: &[(u32, i128)]) -> Event {
    let legs = |legs: &[(u32, i128)]| {
        legs.iter()
            .map(|(n, amount)| Posting { account: LedgerAccount(*n), amount: Amount(*amount) })
            .collect()
    };
    Event {
        version: EVENT_VERSION,
        header: Header {
            shard: 0,
            leaf,
            commit: leaf + 1,
            time_us: 1_790_000_000_000_000 + leaf,
            actor: Actor::Admin,
            key: IdempotencyKey([leaf as u8; 16]),
            command: 0,
        },
        body: body.into(),
        postings: legs(postings),
        pending: Default::default(),
    }
}

fn opened(number: u32, owner: AccountId, kind: AccountKind) -> OpenedLedgerAccount {
    OpenedLedgerAccount { number: LedgerAccount(number), owner, kind, asset: AssetId(0) }
}

fn grant(amount: i128) -> GrantIssued {
    GrantIssued {
        grant: GrantId(0),
        account: ALICE,
        source: GrantSource::Promo,
        asset: AssetId(0),
        amount: Amount(amount),
        priority: 30,
        scope: vec![],
        expires_us: None,
        backing: Backing::Unbacked,
    }
}

/// A network, an account, two ledger accounts and a gift of 1.000000001 FOIL.
fn log() -> Vec<Event> {
    let foil = Asset { id: AssetId(0), symbol: "FOIL".into(), ledger_scale: 9, chain_scale: Some(18) };
    let settings = Settings {
        epoch_us: 1,
        hold_grace_us: 1,
        job_deadline_us_max: 1,
        idempotency_us: 1,
        settle_units_min: 0,
        voucher_us: 1,
        authorisation_margin_epochs: 0,
        capture_tolerance_ppm: None,
    };
    let network = NetworkOpened {
        origin: "books.test/0".into(),
        preset: "prepaid".into(),
        preset_hash: Hash32([0; 32]),
        assets: vec![foil],
        settings,
    };
    let accounts = vec![
        opened(0, AccountId::SYSTEM, AccountKind::PromoExpense),
        opened(1, ALICE, AccountKind::CustomerPromo),
    ];
    vec![
        event(0, network, &[]),
        event(1, AccountOpened { account: ALICE }, &[]),
        event(2, LedgerAccountsOpened { opened: accounts }, &[]),
        event(3, grant(1_000_000_001), &[(0, 1_000_000_001), (1, -1_000_000_001)]),
    ]
}

fn fold(events: &[Event]) -> Result<Books, FoldError> {
    let mut books = Books::new();
    events.iter().try_for_each(|event| books.apply(event))?;
    Ok(books)
}

#[test]
fn what_does_not_add_up_is_refused_with_its_leaf() {
    let good = log();
    assert!(fold(&good).is_ok());
    let mut unbalanced = good.clone();
    unbalanced[3].postings[1].amount.0 += 1;
    assert_eq!(fold(&unbalanced).unwrap_err(), FoldError::Unbalanced { leaf: 3, asset: 0, sum: 1 });
    let mut gap = good.clone();
    gap.remove(1);
    assert_eq!(fold(&gap).unwrap_err(), FoldError::Gap { expected: 1, got: 2 });
    let mut unknown = good.clone();
    unknown[3].postings[0].account = LedgerAccount(9);
    assert_eq!(fold(&unknown).unwrap_err(), FoldError::UnknownAccount { leaf: 3, account: 9 });
    let mut sparse = good;
    let EventBody::LedgerAccountsOpened(accounts) = &mut sparse[2].body else { unreachable!() };
    accounts.opened[1].number = LedgerAccount(5);
    assert_eq!(fold(&sparse).unwrap_err(), FoldError::NotDense { leaf: 2, expected: 1, got: 5 });
}

#[test]
fn statement_and_trial_balance_agree_and_show_every_digit() {
    let books = fold(&log()).unwrap();
    let trial = trial_balance::trial_balance(&books);
    assert!(trial.sums.values().all(|sum| sum.is_zero()));
    let mut statement = Statement::of(ALICE);
    log().iter().for_each(|event| statement.apply(event).unwrap());
    let line = &statement.lines()[0];
    assert_eq!((line.amount.as_str(), line.balance.as_str()), ("1.000000001", "1.000000001"));
    assert_eq!(trial.lines[1].balance_decimal, "-1.000000001", "our liability");
}

#[test]
fn files_are_the_same_bytes_every_time_and_state_where_they_come_from() {
    let events = log();
    let provenance = Provenance { origin: "books.test/0".into(), size: 4, root: None, period: None };
    let csv = postings::csv(&events, &provenance).unwrap();
    assert_eq!(csv, postings::csv(&events, &provenance).unwrap());
    assert!(csv.contains("\nseq,event_id,event_type,ts,job_id,batch_id,account,asset,amount_base,scale\n"));
    assert!(
        csv.contains(
            "3,0.3,grant_issued,2026-09-21T14:13:20.000003Z,,,promo_expense:FOIL,FOIL,1000000001,9\n"
        )
    );
    assert!(
        csv.contains("# rows: 2\n# control total FOIL: debits 1000000001 = credits 1000000001\n"),
        "{csv}"
    );
    let journal = hledger::journal(&events, &provenance).unwrap();
    assert!(journal.contains("    expenses:promo_expense:FOIL  1.000000001 FOIL\n"), "{journal}");
    assert!(journal.contains("= -1.000000001 FOIL"), "every balance is asserted: {journal}");
}
