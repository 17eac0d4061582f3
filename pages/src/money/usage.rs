//! What an account's answers cost, by day and by model, out of the books.

use crate::Room;
use crate::error::PageError;
use crate::figures::now_us;
use crate::layout::scroll;
use crate::plot::{Bar, Bars, day_label, figure, last_days};
use maud::{Markup, html};
use projector::index::{IndexError, Range};
use projector::statements::{LinePart, StatementLine, theirs};
use projector::subject::Finder;
use projector::{At, Names};
use protocol::event::EventBody;
use protocol::id::AccountId;
use std::collections::BTreeMap;

/// Days of the plot.
const DAYS: u64 = 14;
/// Charges that are looked at.
const CHARGES_MAX: usize = 2_000;
/// Charges whose model is looked up: each is read out of the archive.
const MODELS_MAX: usize = 200;

/// An account's bookings as the page shows them.
pub(super) struct Booked {
    /// Newest first.
    pub newest: Vec<StatementLine>,
    /// Day -> cost, base units.
    by_day: BTreeMap<String, i128>,
    /// Model -> answers and cost, of the newest ones.
    by_model: BTreeMap<String, (u64, i128)>,
    /// Decimals and symbol of the charges.
    asset: Option<(u8, String)>,
}

/// Reads them.
pub(super) async fn booked(room: &Room, account: AccountId) -> Result<Booked, PageError> {
    room.books
        .ask(&room.desk, move |books| {
            let range = Range { lines_max: CHARGES_MAX, ..Range::until(At::Newest) };
            let parts = books.index.owner_statement(account, &range)?;
            let newest =
                parts.iter().rev().take(super::LINES_SHOWN).map(|part| part.line(&books.index)).collect();
            let charges: Vec<(LinePart, i128)> = parts
                .iter()
                .filter(|part| matches!(part.kind, "usage_captured" | "capture_reversed"))
                .map(|part| (*part, cost(&books.index, part)))
                .collect();
            let asset = charges.first().and_then(|(part, _)| books.index.ledger_account(part.account));
            let asset = asset.and_then(|account| books.index.asset(account.asset));
            let mut by_day = BTreeMap::new();
            for (part, cost) in &charges {
                *by_day.entry(projector::time::date(part.time_us)).or_default() += cost;
            }
            let by_model = by_model(books, &charges)?;
            Ok(Booked { newest, by_day, by_model, asset: asset.map(|a| (a.ledger_scale, a.symbol)) })
        })
        .await
}

/// What a leg took from the account: plus is a cost. What an operator earned on the same account is none.
fn cost(names: &dyn Names, part: &LinePart) -> i128 {
    match names.ledger_account(part.account) {
        Some(account) if projector::fold::is_customer(account.kind) => -theirs(account.kind, part.amount).0,
        Some(_) | None => 0,
    }
}

fn by_model(
    finder: &impl Finder<Error = IndexError>,
    charges: &[(LinePart, i128)],
) -> Result<BTreeMap<String, (u64, i128)>, IndexError> {
    let mut found: BTreeMap<String, (u64, i128)> = BTreeMap::new();
    for (part, cost) in charges.iter().rev().filter(|(_, cost)| *cost != 0).take(MODELS_MAX) {
        let Some(event) = finder.event(part.leaf)? else { continue };
        let EventBody::UsageCaptured(captured) = &event.body else { continue };
        let job = projector::subject::Subject::Job(captured.job);
        let placed = finder.leaves(&job)?.first().copied();
        let Some(placed) = placed.map(|leaf| finder.event(leaf)).transpose()?.flatten() else { continue };
        if let EventBody::HoldPlaced(hold) = &placed.body {
            let sum = found.entry(hold.model.clone()).or_default();
            sum.0 += 1;
            sum.1 += cost;
        }
    }
    Ok(found)
}

/// The plot and the sums.
pub(super) fn sheet(booked: &Booked) -> Markup {
    let Some((scale, symbol)) = &booked.asset else {
        return html! {
            section.sheet aria-labelledby="usage" {
                h2 #usage { "Usage" }
                p { "Nothing was charged yet. After the first answer its cost stands here." }
                p { a.btn.p href="/chat" { "Ask something" } }
            }
        };
    };
    let bars: Vec<Bar> = last_days(now_us(), DAYS)
        .into_iter()
        .map(|date| {
            let cost = booked.by_day.get(&date).copied().unwrap_or(0);
            Bar { label: day_label(&date), height: cost, figure: figure(cost, *scale) }
        })
        .collect();
    let total: i128 = bars.iter().map(|bar| bar.height).sum();
    let finding = format!("Cost a day over {DAYS} days, {} {symbol} in all", figure(total, *scale));
    html! {
        section.sheet aria-labelledby="usage" {
            div.row { h2 #usage { "Usage" } p.s.q { (finding) } }
            (Bars { finding: &finding, columns: ["Day", "Cost"], bars: &bars }.markup())
            (scroll("Cost by model", html! {
                table {
                    caption { "By model, the newest " (MODELS_MAX) " answers" }
                    thead { tr { th scope="col" { "Model" } th.n scope="col" { "Answers" } th.n scope="col" { "Cost, " (symbol) } } }
                    tbody {
                        @for (model, (answers, cost)) in &booked.by_model {
                            tr { th scope="row" { (model) } td.n { (answers) } td.n { (figure(*cost, *scale)) } }
                        }
                    }
                }
            }))
        }
    }
}
