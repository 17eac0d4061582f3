//! Golden bytes of every event version: one event of every kind, as hex. They are kept for ever: a change here means
//! old logs no longer replay. `UPDATE_GOLDEN=1` writes the newest file when a *new* kind is added, never an old one.

use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId, VaultRef};
use protocol::codec::{CodecError, decode_event, encode_event};
use protocol::event::account::*;
use protocol::event::batch::*;
use protocol::event::chain::*;
use protocol::event::economy::*;
use protocol::event::grant::*;
use protocol::event::hold::*;
use protocol::event::job::*;
use protocol::event::node::*;
use protocol::event::policy::*;
use protocol::event::*;
use protocol::id::*;
use protocol::rate::*;

fn vault() -> VaultRef {
    VaultRef { chain_id: 31337, vault: EvmAddress([0xa1; 20]) }
}

fn wallet() -> EvmAddress {
    EvmAddress([0xb2; 20])
}

fn card() -> RateCard {
    RateCard {
        version: 1,
        effective_us: 1_790_000_000_000_000,
        headroom_ppm: 150_000,
        models: vec![ModelRate {
            model: "SmolLM2-135M-Instruct".into(),
            weights: Hash32([1; 32]),
            tokenizer: Hash32([2; 32]),
            template: Hash32([3; 32]),
            licence: "Apache-2.0".into(),
            proof_class: ProofClass::ReExecutable,
            asset: AssetId(0),
            unit: Unit::Token,
            price: Amount(4_000),
            per_units: 1,
            operator_share_ppm: 800_000,
            context_tokens: 8_192,
        }],
    }
}

fn economy_rules() -> EconomyPublished {
    let (asset, models) = (AssetId(0), vec!["SmolLM2-135M-Instruct".to_owned()]);
    EconomyPublished {
        version: 1,
        day_us: 86_400_000_000,
        allotment: Some(AllotmentRules {
            asset,
            stake_units_min: 100_000_000,
            per_token_max: Amount(1_000_000_000),
            pool_floor: Amount(5_000_000_000),
            pool_bound: Amount(50_000_000_000),
            step_ppm: 100_000,
            revenue_ppm: 500_000,
            models: models.clone(),
            concurrency: 2,
            requests_per_minute: 30,
        }),
        sign_up: Some(SignUpRules {
            asset,
            amount: Amount(1_000_000),
            budget: Amount(100_000_000),
            day_budget: Amount(10_000_000),
            life_us: 604_800_000_000,
            models,
        }),
        bounties: Some(BountyRules {
            asset,
            budget: Amount(1_000_000_000),
            queue_ms_target: 500,
            fallback_ppm_target: 50_000,
            gain_ppm: 100_000,
            multiplier_ppm_max: 1_200_000,
            life_us: 21_600_000_000,
            tiers: vec![TrustTier { age_us: 7, health_ppm: 900_000, multiplier_ppm_max: 1_100_000 }],
        }),
        conduct: Some(ConductRules {
            window_days: 14,
            ramp_us: 604_800_000_000,
            ramp_start_ppm: 100_000,
            uptime_success_us: 3_600_000_000,
            cut_ppm: 500_000,
            cut_us: 259_200_000_000,
            cut_steps: 72,
            strikes_max: 3,
            reserve_ppm: 200_000,
            reserve_days: 3,
        }),
        packages: Some(PackageRules {
            service_ppm_target: 990_000,
            first_token_ms_max: 2_000,
            credit_ppm: 100_000,
            credit_life_us: 2_592_000_000_000,
            concurrency: 8,
        }),
    }
}

const EARNER: AccountId = AccountId([53; 16]);
const EARNER_WALLET: EvmAddress = EvmAddress([54; 20]);

fn allotment_bodies() -> Vec<EventBody> {
    let (account, wallet) = (EARNER, EARNER_WALLET);
    vec![
        economy_rules().into(),
        AllotmentDayOpened {
            day: 20_717,
            block: 700,
            block_hash: Word32([55; 32]),
            stake_units_total: 200_000_000,
            reserve_units: 25_000_000,
            revenue_mean_7: Amount(3_571_428_571),
            usage_mean_7: Amount(11),
            usage_mean_28: Amount(10),
            pool_before: Amount(5_000_000_000),
            ratio_ppm: 1_100_000,
            pool: Amount(1_785_714_285),
        }
        .into(),
        StakeAllotted {
            day: 20_717,
            account,
            wallet,
            stake_units: 150_000_000,
            amount: Amount(1_339_285_713),
            grant: Some(GrantId(70)),
        }
        .into(),
        StakeAllotted { day: 20_717, account, wallet, stake_units: 5, amount: Amount(0), grant: None }.into(),
        SignUpCredited { account, grant: GrantId(71), day_left: Amount(9), left: Amount(99) }.into(),
    ]
}

fn conduct_bodies() -> Vec<EventBody> {
    let (job, operator, node) = (JobId([50; 16]), OperatorId([51; 32]), NodeId([52; 16]));
    vec![
        BountyPublished {
            model: "SmolLM2-135M-Instruct".into(),
            queue_ms: 900,
            fallback_ppm: 0,
            multiplier_ppm: 1_080_000,
            until_us: 1_790_000_000_000_000,
            budget_left: Amount(1_000_000_000),
        }
        .into(),
        BountyPaid { job, operator, multiplier_ppm: 1_080_000, base: Amount(100), amount: Amount(8) }.into(),
        BountyTakenBack { job, operator, amount: Amount(8) }.into(),
        PayoutCutStarted { operator, node, model: "m".into(), cut_ppm: 500_000, until_us: 9 }.into(),
        JobShareSet { job, operator, card_share_ppm: 800_000, share_ppm: 400_000, reason: ShareReason::Cut }
            .into(),
        FallbackMarked { operator, share_ppm: Some(0) }.into(),
        FallbackMarked { operator, share_ppm: None }.into(),
        UptimeNoted { operator, online_us: 3_600_000_000, probes_passed: 3, probes_failed: 1 }.into(),
        OperatorStruck {
            operator,
            job,
            strikes: 1,
            banned: false,
            forfeited: vec![Forfeit {
                asset: AssetId(0),
                backing: Backing::Package(77),
                amount: Amount(500),
            }],
        }
        .into(),
    ]
}

fn settled_bodies() -> Vec<EventBody> {
    let (account, wallet) = (EARNER, EARNER_WALLET);
    vec![
        ServiceMeasured {
            package: GrantId(72),
            day: 20_716,
            requests: 100,
            requests_met: 98,
            spent: Amount(1_000),
            credit: Amount(100),
            grant: Some(GrantId(73)),
        }
        .into(),
        TreasuryEpochClosed {
            batch: BatchId([56; 16]),
            epoch: 1,
            day: 20_717,
            asset: AssetId(0),
            payouts: vec![Payout { account, address: wallet, cumulative_units: 9, added_units: 4 }],
        }
        .into(),
        TreasuryEpochPaid { batch: BatchId([56; 16]), tx: Word32([57; 32]), block: 701, units: 4 }.into(),
    ]
}

fn policy_bodies() -> Vec<EventBody> {
    let settings = Settings {
        epoch_us: 21_600_000_000,
        hold_grace_us: 30_000_000,
        job_deadline_us_max: 600_000_000,
        idempotency_us: 86_400_000_000,
        settle_units_min: 0,
        voucher_us: 3_600_000_000,
        authorisation_margin_epochs: 2,
        capture_tolerance_ppm: Some(50_000),
    };
    let foil = Asset { id: AssetId(0), symbol: "FOIL".into(), ledger_scale: 9, chain_scale: Some(18) };
    let local = Asset { id: AssetId(1), symbol: "CREDIT".into(), ledger_scale: 9, chain_scale: None };
    vec![
        NetworkOpened {
            origin: "counterfoil.example/prepaid/0".into(),
            preset: "prepaid".into(),
            preset_hash: Hash32([4; 32]),
            assets: vec![foil, local],
            settings,
        }
        .into(),
        WriterChanged { epoch: 1, nonce: Hash32([5; 32]) }.into(),
        RateCardPublished { hash: card().hash(), card: card() }.into(),
        VaultRegistered {
            vault: vault(),
            payouts: EvmAddress([0xa2; 20]),
            token: EvmAddress([0xa3; 20]),
            asset: AssetId(0),
            deployed_block: 7,
            coordinator: EvmAddress([0xa4; 20]),
            platform: EvmAddress([0xa5; 20]),
        }
        .into(),
    ]
}

fn account_bodies() -> Vec<EventBody> {
    let authorised = SpendAuthorised {
        account: AccountId([6; 16]),
        vault: vault(),
        wallet: wallet(),
        max_cumulative_units: 20_000_000,
        valid_until_s: 1_800_000_000,
        nonce: 0,
        session: Hash32([7; 32]),
        signature: Some(EvmSignature([8; 65])),
    };
    vec![
        AccountOpened { account: AccountId([6; 16]) }.into(),
        LedgerAccountsOpened {
            opened: vec![OpenedLedgerAccount {
                number: LedgerAccount(3),
                owner: AccountId([6; 16]),
                kind: AccountKind::CustomerDeposited,
                asset: AssetId(0),
            }],
        }
        .into(),
        SpendAuthorised { signature: None, ..authorised.clone() }.into(),
        authorised.into(),
        AccountClosed { account: AccountId([6; 16]) }.into(),
        SpendCapSet {
            account: AccountId([6; 16]),
            spender: SpenderId([34; 16]),
            asset: AssetId(0),
            cap: Some(Amount(1_000_000_000)),
        }
        .into(),
        CreditLineSet { grant: GrantId(3), limit: Amount(50_000_000_000), change: Amount(-7) }.into(),
        CreditRepaid { grant: GrantId(3), amount: Amount(8), reference: Hash32([35; 32]) }.into(),
    ]
}

fn chain_bodies() -> Vec<EventBody> {
    let key = DepositKey { vault: vault(), tx: Word32([9; 32]), ordinal: 0 };
    let (account, tx, amount) = (AccountId([6; 16]), Word32([10; 32]), Amount(5_000_000_000));
    vec![
        DepositConfirmed {
            key,
            wallet: wallet(),
            units: 5_000_000,
            amount,
            account: Some(account),
            block: 12,
            block_hash: Word32([11; 32]),
        }
        .into(),
        DepositAttributed { vault: vault(), wallet: wallet(), account, amount }.into(),
        DepositReversed { key, taken: amount, owed: Amount(0) }.into(),
        ExitRequested { vault: vault(), wallet: wallet(), exit_at_s: 1_800_000_000, tx }.into(),
        ExitCancelled { vault: vault(), wallet: wallet(), tx }.into(),
        ExitFinalised {
            vault: vault(),
            wallet: wallet(),
            units: 1,
            amount: Amount(1_000),
            shortfall: Amount(0),
            tx,
        }
        .into(),
        VoucherIssued {
            voucher: VoucherId([12; 16]),
            account,
            vault: vault(),
            wallet: wallet(),
            units: 4_999_994,
            amount: Amount(4_999_994_000),
            nonce: 0,
            deadline_s: 1_800_000_000,
        }
        .into(),
        VoucherRedeemed { voucher: VoucherId([12; 16]), tx }.into(),
        VoucherLapsed { voucher: VoucherId([12; 16]), block: 99 }.into(),
        CheckpointAnchored { chain_id: 31337, size: 42, root: Hash32([13; 32]), tx }.into(),
    ]
}

fn job_bodies() -> Vec<EventBody> {
    [grant_bodies(), hold_bodies(), charge_bodies()].concat()
}

fn grant_bodies() -> Vec<EventBody> {
    vec![
        GrantIssued {
            grant: GrantId(0),
            account: AccountId([6; 16]),
            source: GrantSource::Deposited,
            asset: AssetId(0),
            amount: Amount(0),
            priority: 50,
            scope: vec![],
            expires_us: None,
            backing: Backing::Vault(vault(), wallet()),
        }
        .into(),
        GrantExpired { grant: GrantId(1), lapsed: Amount(i128::from(u64::MAX) * 3) }.into(),
        CreditMoved { from: GrantId(1), to: GrantId(2), amount: Amount(7) }.into(),
    ]
}

fn hold_bodies() -> Vec<EventBody> {
    let (hold, job) = (HoldId([14; 16]), JobId([15; 16]));
    let slices =
        protocol::event::hold::Slices::from(vec![Slice { grant: GrantId(0), amount: Amount(5_680_000) }]);
    vec![
        HoldPlaced {
            hold,
            job,
            account: AccountId([6; 16]),
            asset: AssetId(0),
            amount: Amount(5_680_000),
            slices,
            rate_card_version: 1,
            rate_card_hash: Hash32([18; 32]),
            model: "SmolLM2-135M-Instruct".into(),
            input_units: 420,
            output_units_max: 1_000,
            deadline_us: 1_790_000_060_000_000,
            spender: Some(SpenderId([34; 16])),
        }
        .into(),
        HoldExtended {
            hold,
            amount: Amount(400_000),
            slices: vec![Slice { grant: GrantId(1), amount: Amount(400_000) }].into(),
            output_units_max: 1_100,
            deadline_us: 1_790_000_090_000_000,
        }
        .into(),
    ]
}

fn charge_bodies() -> Vec<EventBody> {
    let (hold, job, node) = (HoldId([14; 16]), JobId([15; 16]), NodeId([16; 16]));
    let operator = OperatorId([17; 32]);
    let slices =
        protocol::event::hold::Slices::from(vec![Slice { grant: GrantId(0), amount: Amount(5_680_000) }]);
    vec![
        HoldVoided { hold, reason: VoidReason::OperatorFault }.into(),
        HoldExpired { hold }.into(),
        JobDispatched { job, attempt: 0, node, operator, body: Hash32([19; 32]), continues_at: 0 }.into(),
        UsageCaptured {
            hold,
            job,
            attempt: 0,
            node,
            operator,
            outcome: Outcome::Completed,
            input_units: 420,
            output_units: 1_000,
            output_units_worker: 1_000,
            output_units_gateway: 1_000,
            cost: Amount(5_680_000),
            slices,
            operator_share: Amount(4_544_000),
            platform_share: Amount(1_136_000),
            receipt: Hash32([20; 32]),
            chain_head: Hash32([21; 32]),
            part: Some(CapturePart { number: 1, open: false }),
            beyond_hold: Some(Amount(80_000)),
        }
        .into(),
        CaptureReversed {
            job,
            refunded: Amount(5_680_000),
            operator_share: Amount(4_544_000),
            platform_share: Amount(1_136_000),
        }
        .into(),
    ]
}

fn node_bodies() -> Vec<EventBody> {
    let (node, operator) = (NodeId([16; 16]), OperatorId([17; 32]));
    vec![
        OperatorRegistered { operator, account: AccountId([22; 16]), payout_address: EvmAddress([23; 20]) }
            .into(),
        NodeRegistered {
            node,
            operator,
            models: vec!["SmolLM2-135M-Instruct".into()],
            slots: 4,
            sealing_key: SealingKey([24; 32]),
        }
        .into(),
        NodeRetired { node }.into(),
    ]
}

fn batch_bodies() -> Vec<EventBody> {
    let batch = BatchId([25; 16]);
    vec![
        BatchClosed {
            short: None,
            batch,
            number: 1,
            vault: vault(),
            asset: AssetId(0),
            cutoff_leaf: 40,
            rail: Rail::RootClaims,
            charges: vec![Charge { wallet: wallet(), cumulative_units: 5_680, added_units: 5_680 }],
            payouts: vec![Payout {
                account: AccountId([22; 16]),
                address: EvmAddress([23; 20]),
                cumulative_units: 4_544,
                added_units: 4_544,
            }],
        }
        .into(),
        BatchSubmitted {
            batch,
            payout_root: Word32([26; 32]),
            root_total_units: 5_680,
            requests_root: Word32([27; 32]),
            tlog_size: 41,
            tlog_root: Hash32([28; 32]),
            commitment: Word32([29; 32]),
        }
        .into(),
        BatchConfirmed {
            batch,
            tx: Word32([30; 32]),
            block: 20,
            block_hash: Word32([31; 32]),
            charged_units: 5_680,
            amount: Amount(5_680_000),
        }
        .into(),
        BatchFailed { batch, reason: "the vault would charge less".into() }.into(),
        PayoutClaimed {
            vault: vault(),
            account: AccountId([22; 16]),
            address: EvmAddress([23; 20]),
            units: 4_544,
            amount: Amount(4_544_000),
            tx: Word32([32; 32]),
        }
        .into(),
    ]
}

fn samples() -> Vec<Event> {
    let bodies =
        [policy_bodies(), account_bodies(), chain_bodies(), job_bodies(), node_bodies(), batch_bodies()];
    // What is added stands at the end: lines that are there keep their bytes.
    let added = [
        EarningsTaken { grant: GrantId(3), amount: Amount(24_000) }.into(),
        BatchReplaced { batch: BatchId([25; 16]), replaced: Word32([36; 32]), tx: Word32([37; 32]) }.into(),
        BatchClosed {
            batch: BatchId([39; 16]),
            number: 2,
            vault: vault(),
            asset: AssetId(0),
            cutoff_leaf: 60,
            rail: Rail::RootClaims,
            charges: vec![Charge { wallet: wallet(), cumulative_units: 9, added_units: 9 }],
            payouts: vec![],
            short: Some(vec![EvmAddress([40; 20])]),
        }
        .into(),
        SolvencyChecked {
            vault: vault(),
            block: 130,
            block_hash: Word32([38; 32]),
            held_units: 7_000_000,
            owed_units: 6_999_999,
        }
        .into(),
    ];
    let bodies =
        [bodies.concat(), added.to_vec(), allotment_bodies(), conduct_bodies(), settled_bodies()].concat();
    let actors = [
        Actor::Writer,
        Actor::Admin,
        Actor::Account(AccountId([6; 16])),
        Actor::Gateway,
        Actor::Watcher,
        Actor::Settler,
        Actor::Operator(OperatorId([17; 32])),
        Actor::Verifier,
    ];
    let event = |(k, body): (usize, EventBody)| Event {
        version: EVENT_VERSION,
        header: Header {
            shard: 0,
            leaf: k as u64,
            commit: 1 + k as u64,
            time_us: 1_790_000_000_000_000 + k as u64,
            actor: actors[k % actors.len()],
            key: IdempotencyKey([33; 16]),
            command: 0x0123_4567_89ab_cdef,
        },
        body,
        postings: vec![
            Posting { account: LedgerAccount(3), amount: Amount(5_680_000) },
            Posting { account: LedgerAccount(4), amount: Amount(-5_680_000) },
        ]
        .into(),
        pending: Default::default(),
    };
    bodies.into_iter().enumerate().map(event).collect()
}

#[test]
fn every_kind_has_its_golden_bytes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/events_v2.hex");
    let lines: Vec<String> = samples()
        .iter()
        .map(|event| {
            let bytes = encode_event(event).expect("samples are small");
            assert_eq!(decode_event(&bytes).as_ref(), Ok(event), "round trip");
            format!("{} {}\n", event.body.kind(), data_encoding::HEXLOWER.encode(&bytes))
        })
        .collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, lines.concat()).expect("golden file is writable");
    }
    let golden = std::fs::read_to_string(path).expect("golden file is there");
    assert_eq!(lines.concat(), golden, "the bytes of version 2 are frozen");
    for kind in EventBody::KINDS {
        assert!(golden.lines().any(|l| l.starts_with(&format!("{kind} "))), "no golden event of kind {kind}");
    }
}

/// Old logs are read for ever: version 1 decodes to today's types, keeps its own bytes, and may not hold what came later.
#[test]
fn version_1_is_read_for_ever() {
    let golden = include_str!("../golden/events_v1.hex");
    let mut lines = 0;
    for line in golden.lines() {
        let (kind, hex) = line.split_once(' ').expect("kind and bytes");
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).expect("hex");
        let event = decode_event(&bytes).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!((event.version, event.body.kind()), (1, kind));
        assert_eq!(encode_event(&event).expect("small"), bytes, "{kind}: a leaf is its own bytes for ever");
        lines += 1;
    }
    assert_eq!(lines, 35, "every kind that version 1 had, one of them in two forms");
    let mut newer = 0;
    for event in samples() {
        let claims_one = encode_event(&Event { version: 1, ..event.clone() }).expect("small");
        match decode_event(&claims_one) {
            Ok(read) => assert_eq!((read.version, read.body), (1, event.body)),
            Err(CodecError::VersionTooLow { said: 1, since: 2 }) => newer += 1,
            Err(error) => panic!("{}: {error}", event.body.kind()),
        }
    }
    assert_eq!(newer, 29, "what version 2 added is refused in version 1");
}

#[test]
fn a_capture_and_a_hold_are_small() {
    // The disk is the ledger's main cost: typical events stay compact (ids are most of it).
    for event in samples() {
        let bytes = encode_event(&event).expect("samples are small").len();
        match &event.body {
            EventBody::HoldPlaced(_) | EventBody::UsageCaptured(_) => assert!(bytes < 380, "{bytes}"),
            EventBody::HoldVoided(_) => assert!(bytes < 120, "{bytes}"),
            _ => {}
        }
    }
}

#[test]
fn other_forms_of_the_same_value_are_refused() {
    let event = &samples()[4];
    let good = encode_event(event).expect("samples are small");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_ne!(decode_event(&bad).as_ref(), Ok(event), "flip at {at} went unnoticed");
    }
    let trailing = [good.as_slice(), &[0]].concat();
    assert!(decode_event(&trailing).is_err(), "trailing bytes");
    // `0x18 0x01` is a longer form of 1: decodable CBOR, not canonical.
    let mut longer = good.clone();
    longer.splice(1..2, [0x18, 0x01]);
    assert!(decode_event(&longer).is_err(), "longer integer form");
}
