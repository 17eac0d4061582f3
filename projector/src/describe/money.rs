//! Sentences about money that no job moves: deposits, authorisations, exits, vouchers, grants, credit lines, batches.

use super::{Teller, counted, units_of};
use crate::time::rfc3339;
use protocol::amount::Amount;
use protocol::event::account::{CreditLineSet, SpendAuthorised, SpendCapSet};
use protocol::event::batch::{BatchClosed, Rail};
use protocol::event::chain::{DepositConfirmed, ExitFinalised, VoucherIssued};
use protocol::event::grant::{Backing, GrantIssued, GrantSource};
use protocol::event::{EventBody, GrantId};
use protocol::id::AccountId;

pub(super) fn sentence(teller: &Teller<'_>) -> String {
    let figure = |amount: Amount| teller.figure(amount);
    match &teller.event.body {
        EventBody::SpendAuthorised(e) => authorised(teller, e),
        EventBody::SpendCapSet(e) => cap(teller, e),
        EventBody::CreditLineSet(e) => credit_line(teller, e),
        EventBody::CreditRepaid(e) => format!(
            "{} paid {} of what it had drawn on {}, outside the ledger (document {}).",
            owner(teller, e.grant),
            figure(e.amount),
            grant(teller, e.grant),
            e.reference
        ),
        EventBody::DepositConfirmed(e) => deposit(teller, e),
        EventBody::DepositAttributed(e) => format!(
            "{} that wallet {} had deposited before it was linked went to {}.",
            figure(e.amount),
            e.wallet,
            e.account
        ),
        EventBody::DepositReversed(e) => format!(
            "The deposit of transaction {} vanished from the chain: {} was taken back, {} is owed.",
            e.key.tx,
            figure(e.taken),
            figure(e.owed)
        ),
        EventBody::GrantIssued(e) => issued(teller, e),
        EventBody::GrantExpired(e) => {
            format!("{} ended; {} that was left lapsed.", capital(&grant(teller, e.grant)), figure(e.lapsed))
        }
        EventBody::CreditMoved(e) => format!(
            "{} of {} moved from {} to {}.",
            figure(e.amount),
            owner(teller, e.from),
            grant(teller, e.from),
            grant(teller, e.to)
        ),
        EventBody::EarningsTaken(e) => format!(
            "{} that {} earned from credit that no vault pays became spendable, in {}.",
            figure(e.amount),
            owner(teller, e.grant),
            grant(teller, e.grant)
        ),
        _ => chain_sentence(teller),
    }
}

fn chain_sentence(teller: &Teller<'_>) -> String {
    let figure = |amount: Amount| teller.figure(amount);
    match &teller.event.body {
        EventBody::VaultRegistered(e) => format!(
            "Vault {} on chain {} holds {} for the network; claims are paid by {}.",
            e.vault.vault,
            e.vault.chain_id,
            teller.names.asset(e.asset).map_or_else(|| "its asset".to_owned(), |a| a.symbol),
            e.payouts
        ),
        EventBody::ExitRequested(e) => format!(
            "Wallet {} asked the vault to leave without us, possible from {}; nothing of it is spendable any more.",
            e.wallet,
            rfc3339(e.exit_at_s.saturating_mul(1_000_000))
        ),
        EventBody::ExitCancelled(e) => format!("Wallet {} took its exit request back.", e.wallet),
        EventBody::ExitFinalised(e) => exit(teller, e),
        EventBody::VoucherIssued(e) => voucher(teller, e),
        EventBody::VoucherRedeemed(e) => {
            format!("Withdrawal {} was paid by the vault in transaction {}.", e.voucher, e.tx)
        }
        EventBody::VoucherLapsed(e) => format!(
            "Withdrawal {} was not used before its deadline (block {}); its amount is free again.",
            e.voucher, e.block
        ),
        EventBody::BatchClosed(e) => closed(teller, e),
        EventBody::BatchSubmitted(e) => format!(
            "{} was fixed for the chain: payout root {}, over the log of size {}.",
            e.batch, e.payout_root, e.tlog_size
        ),
        EventBody::BatchConfirmed(e) => format!(
            "{} is final: the vault charged {} in transaction {} (block {}).",
            e.batch,
            figure(e.amount),
            e.tx,
            e.block
        ),
        EventBody::BatchFailed(e) => {
            format!(
                "{} was withdrawn: {}; its amounts wait for another batch.",
                e.batch,
                e.reason.trim_end_matches('.')
            )
        }
        EventBody::BatchReplaced(e) => format!(
            "Transaction {} of {} was stuck and is replaced by {} with higher fees.",
            e.replaced, e.batch, e.tx
        ),
        EventBody::SolvencyChecked(e) => format!(
            "At block {} ({}) the vault held {} units and owed {}: {}.",
            e.block,
            e.block_hash,
            e.held_units,
            e.owed_units,
            if e.held_units >= e.owed_units { "it is solvent" } else { "IT IS SHORT" }
        ),
        EventBody::PayoutClaimed(e) => {
            let whose = platform_or(e.account);
            format!(
                "{} of {whose}'s earnings was paid to {} in transaction {}.",
                figure(e.amount),
                e.address,
                e.tx
            )
        }
        other => other.kind().replace('_', " "),
    }
}

/// The charges and payouts of a batch, a line each.
pub(super) fn batch_lines(teller: &Teller<'_>) -> Vec<String> {
    /// Beyond this the file is the place to look.
    const LINES_MAX: usize = 32;
    let EventBody::BatchClosed(batch) = &teller.event.body else { return Vec::new() };
    let asset = teller.names.asset(batch.asset);
    let money = |units: u64| units_of(asset.as_ref(), units);
    let charges = batch.charges.iter().map(|charge| {
        format!(
            "wallet {} is charged {} (for life {})",
            charge.wallet,
            money(charge.added_units),
            money(charge.cumulative_units)
        )
    });
    let payouts = batch.payouts.iter().map(|payout| {
        format!(
            "{} gets {} at {} (for life {})",
            platform_or(payout.account),
            money(payout.added_units),
            payout.address,
            money(payout.cumulative_units)
        )
    });
    let mut lines: Vec<String> = charges.chain(payouts).take(LINES_MAX).collect();
    let count = batch.charges.len() + batch.payouts.len();
    if count > LINES_MAX {
        lines.push(format!("and {} more; `counterfoil export batch` has all", count - LINES_MAX));
    }
    lines
}

fn authorised(teller: &Teller<'_>, event: &SpendAuthorised) -> String {
    format!(
        "Wallet {} lets {} spend up to {} in all, until {}.",
        event.wallet,
        event.account,
        teller.units(event.vault, event.max_cumulative_units),
        rfc3339(u64::from(event.valid_until_s) * 1_000_000)
    )
}

fn cap(teller: &Teller<'_>, event: &SpendCapSet) -> String {
    match event.cap {
        Some(cap) => format!(
            "Key {} of {} may spend at most {} in all, charges and open holds together.",
            event.spender,
            event.account,
            teller.money(event.asset, cap)
        ),
        None => format!("Key {} of {} may spend without a cap.", event.spender, event.account),
    }
}

fn credit_line(teller: &Teller<'_>, event: &CreditLineSet) -> String {
    let owner = owner(teller, event.grant);
    let asset = teller.grant(event.grant).map(|grant| grant.asset);
    let money = |amount| asset.map_or_else(|| teller.figure(amount), |asset| teller.money(asset, amount));
    let change = match event.change.0 {
        0 => "as before".to_owned(),
        more if more > 0 => format!("{} more than before", money(event.change)),
        _ => format!("{} less than before", money(-event.change)),
    };
    format!("{owner} may owe up to {} on {}, {change}.", money(event.limit), grant(teller, event.grant))
}

fn deposit(teller: &Teller<'_>, event: &DepositConfirmed) -> String {
    let whose = event.account.map_or_else(
        || "it waits until the wallet is linked to an account".to_owned(),
        |account| format!("{account} has it as credit"),
    );
    format!(
        "Wallet {} deposited {} in transaction {} (block {}); {whose}.",
        event.wallet,
        teller.figure(event.amount),
        event.key.tx,
        event.block
    )
}

fn exit(teller: &Teller<'_>, event: &ExitFinalised) -> String {
    let short = if event.shortfall.is_zero() {
        String::new()
    } else {
        format!(
            "; {} had been spent beyond it and is owed",
            teller.figure(Amount(event.shortfall.0.saturating_abs()))
        )
    };
    format!("Wallet {} left and took {} out of the vault{short}.", event.wallet, teller.figure(event.amount))
}

fn voucher(teller: &Teller<'_>, event: &VoucherIssued) -> String {
    format!(
        "{} withdraws {}: wallet {} may take it out of the vault until {} ({}).",
        event.account,
        teller.figure(event.amount),
        event.wallet,
        rfc3339(event.deadline_s.saturating_mul(1_000_000)),
        event.voucher
    )
}

fn issued(teller: &Teller<'_>, event: &GrantIssued) -> String {
    let amount = if event.amount.is_zero() {
        "empty so far".to_owned()
    } else {
        teller.money(event.asset, event.amount)
    };
    let scope = if event.scope.is_empty() { "any model".to_owned() } else { event.scope.join(", ") };
    let end =
        event.expires_us.map_or_else(|| "without end".to_owned(), |us| format!("until {}", rfc3339(us)));
    let backing = match event.backing {
        Backing::Unbacked => "nothing behind it",
        Backing::Vault(..) => "backed by the wallet's balance in the vault",
        Backing::Treasury => "backed by the treasury",
        Backing::Package(_) => "backed by a package",
    };
    format!(
        "{} got grant {}, {}: {amount}, for {scope}, priority {}, {end}, {backing}.",
        event.account,
        event.grant.0,
        source(event.source),
        event.priority
    )
}

fn closed(teller: &Teller<'_>, event: &BatchClosed) -> String {
    let added: u64 = event.charges.iter().map(|charge| charge.added_units).sum();
    let rail = match event.rail {
        Rail::RootClaims => "claims against a payout root",
        Rail::Safe => "a multisig",
        Rail::FiatFile => "a bank file",
    };
    format!(
        "Batch {} ({}) closed with the charges before leaf {}: {} from {} to {}, paid by {rail}.",
        event.number,
        event.batch,
        event.cutoff_leaf,
        units_of(teller.names.asset(event.asset).as_ref(), added),
        counted(event.charges.len(), "wallet"),
        counted(event.payouts.len(), "payee")
    )
}

fn source(source: GrantSource) -> &'static str {
    match source {
        GrantSource::Deposited => "deposited credit",
        GrantSource::Package => "a package",
        GrantSource::Earned => "earned credit",
        GrantSource::Allotment => "the day's allotment",
        GrantSource::Promo => "promotional credit",
        GrantSource::CreditLine => "a credit line",
    }
}

/// `grant 3 (promotional credit)`.
pub(super) fn grant(teller: &Teller<'_>, id: GrantId) -> String {
    match teller.grant(id) {
        Some(issued) => format!("grant {} ({})", id.0, source(issued.source)),
        None => format!("grant {}", id.0),
    }
}

fn owner(teller: &Teller<'_>, id: GrantId) -> String {
    teller.grant(id).map_or_else(|| "its account".to_owned(), |grant| grant.account.to_string())
}

fn platform_or(account: AccountId) -> String {
    if account == AccountId::SYSTEM { "the platform".to_owned() } else { account.to_string() }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
