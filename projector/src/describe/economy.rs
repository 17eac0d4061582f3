//! Sentences about the economies: allotments, sign-up credit, bounties, operators' conduct, packages, the treasury.

use super::Teller;
use protocol::amount::Amount;
use protocol::asset::{AssetId, VAULT_SCALE};
use protocol::event::EventBody;
use protocol::event::economy::{AllotmentDayOpened, EconomyPublished, OperatorStruck, ShareReason};

pub(super) fn sentence(teller: &Teller<'_>) -> String {
    match &teller.event.body {
        EventBody::EconomyPublished(e) => published(e),
        EventBody::AllotmentDayOpened(e) => day_opened(e),
        EventBody::StakeAllotted(e) => format!(
            "For day {} a stake of {} tokens gave {} an allotment of {} base units.",
            e.day,
            units(e.stake_units),
            e.account,
            e.amount.0
        ),
        EventBody::SignUpCredited(e) => format!(
            "{} got its sign-up credit; {} base units of the budget are left, {} today.",
            e.account, e.left.0, e.day_left.0
        ),
        EventBody::BountyPublished(e) => format!(
            "{} had a queue of {} ms and {} of its jobs on fallback: serving it earns {} times its share from backed credit, out of \
             the platform's own.",
            e.model,
            e.queue_ms,
            percent(e.fallback_ppm),
            Amount(e.multiplier_ppm.into()).to_decimal_string(6)
        ),
        EventBody::PayoutCutStarted(e) => format!(
            "{} stopped serving {} with {}: its share is cut by {} at first, by nothing after 72 hours or what the rules say.",
            e.operator,
            e.model,
            e.node,
            percent(e.cut_ppm)
        ),
        EventBody::FallbackMarked(e) => match e.share_ppm {
            Some(share) => {
                format!("{} is fallback hardware and gets {} of a charge.", e.operator, percent(share))
            }
            None => format!("{} is no fallback hardware any more.", e.operator),
        },
        EventBody::UptimeNoted(e) => format!(
            "Nodes of {} were online for {} s; {} probes went well and {} did not.",
            e.operator,
            e.online_us / 1_000_000,
            e.probes_passed,
            e.probes_failed
        ),
        _ => money_sentence(teller),
    }
}

fn money_sentence(teller: &Teller<'_>) -> String {
    let figure = |amount: Amount| teller.figure(amount);
    match &teller.event.body {
        EventBody::BountyPaid(e) => format!(
            "The platform gave {} {} of its own share on top, for {}; the consumer's charge stays as it was.",
            e.operator,
            figure(e.amount),
            e.job
        ),
        EventBody::BountyTakenBack(e) => {
            format!("{} that {} got on top for {} went back.", figure(e.amount), e.operator, e.job)
        }
        EventBody::JobShareSet(e) => format!(
            "{} gets {} of {}'s charges in place of {}, because {}.",
            e.operator,
            percent(e.share_ppm),
            e.job,
            percent(e.card_share_ppm),
            match e.reason {
                ShareReason::Cut => "it switched models",
                ShareReason::Fallback => "it is fallback hardware",
            }
        ),
        EventBody::OperatorStruck(e) => struck(teller, e),
        EventBody::ServiceMeasured(e) => format!(
            "On day {} {} of {} requests of grant {} started in time; {} base units were credited.",
            e.day, e.requests_met, e.requests, e.package.0, e.credit.0
        ),
        EventBody::TreasuryEpochClosed(e) => format!(
            "Epoch {} of the treasury owes {} {} {} from the reserve of day {}.",
            e.epoch,
            super::counted(e.payouts.len(), "worker"),
            units(e.payouts.iter().map(|payout| payout.added_units).sum()),
            symbol(teller, e.asset),
            e.day
        ),
        EventBody::TreasuryEpochPaid(e) => {
            format!("The treasury paid {} in transaction {}, block {}.", units(e.units), e.tx, e.block)
        }
        other => other.kind().replace('_', " "),
    }
}

fn published(event: &EconomyPublished) -> String {
    let parts = [
        ("allotment", event.allotment.is_some()),
        ("sign-up credit", event.sign_up.is_some()),
        ("bounties", event.bounties.is_some()),
        ("conduct of operators", event.conduct.is_some()),
        ("packages", event.packages.is_some()),
    ];
    let named: Vec<&str> = parts.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
    format!("Version {} of the economies' rules came into force: {}.", event.version, named.join(", "))
}

fn day_opened(event: &AllotmentDayOpened) -> String {
    format!(
        "Day {} opens with a pool of {} base units, the most the treasury can owe for it: the pool before was {}, usage made {} of it, a \
         mean day's revenue is {}, {} are in the treasury; {} tokens are staked at block {}.",
        event.day,
        event.pool.0,
        event.pool_before.0,
        percent(event.ratio_ppm),
        event.revenue_mean_7.0,
        units(event.reserve_units),
        units(event.stake_units_total),
        event.block
    )
}

fn struck(teller: &Teller<'_>, event: &OperatorStruck) -> String {
    let lost: i128 = event.forfeited.iter().map(|forfeit| forfeit.amount.0).sum();
    let lost = if lost == 0 { "nothing".to_owned() } else { teller.figure(Amount(lost)) };
    let banned = if event.banned { "; it gets no more jobs" } else { "" };
    format!(
        "{} failed verification of {}: strike {}, {lost} that waited is lost{banned}.",
        event.operator, event.job, event.strikes
    )
}

fn symbol(teller: &Teller<'_>, asset: AssetId) -> String {
    teller.names.asset(asset).map_or_else(String::new, |asset| asset.symbol.clone())
}

fn units(units: u64) -> String {
    Amount(i128::from(units)).to_decimal_string(VAULT_SCALE)
}

fn percent(ppm: u32) -> String {
    format!("{} %", Amount(ppm.into()).to_decimal_string(4))
}
