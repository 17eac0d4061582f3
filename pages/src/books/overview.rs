//! The books at a glance: how long the log is, what is signed, what is held, and every kind of account with its sum.

use super::shelf::OpenBooks;
use super::{admitted, entry_link, head};
use crate::Room;
use crate::error::PageError;
use crate::figures::{count, exact};
use crate::layout::{Here, Page, State as Shape, scroll, state};
use crate::viewer::Viewer;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use projector::index::IndexError;
use projector::{At, Names};
use protocol::amount::Amount;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// `GET /books`
pub(super) async fn show(State(room): State<Arc<Room>>, headers: HeaderMap) -> Result<Response, PageError> {
    if let Err(asks) = admitted(&room, &headers).await {
        return Ok(asks);
    }
    let viewer = Viewer::of(&room, &headers).await;
    let signed = signed_size(room.desk.data_dir()).await;
    let body = room.books.ask(&room.desk, move |books| overview(books, signed)).await?;
    let page =
        Page { title: "Books", here: Here::Books, viewer: viewer.as_ref(), class: "", scripts: &[], body };
    Ok(page.into_response())
}

/// The page that asks for the auditors' key.
pub(super) fn ask_for_key(was_wrong: bool) -> Response {
    let body = html! {
        section.sheet aria-labelledby="enter" {
            h1 #enter { "Books" }
            p { "This network shows its books to auditors. Anybody may check the signed log itself: " a href="/tlog/checkpoint" { "checkpoint" } "." }
            @if was_wrong { div.note.b role="alert" { p { "This is not the auditors' key." } } }
            form method="post" action="/books/enter" {
                label for="key" { "Auditors' key" input #key.m type="password" name="key" required autocomplete="current-password"; }
                button.btn { "Open the books" }
            }
        }
    };
    Page { title: "Books", here: Here::Books, viewer: None, class: "", scripts: &[], body }.into_response()
}

/// How many entries the newest signed tree head covers.
async fn signed_size(data_dir: &Path) -> Option<u64> {
    let text = tokio::fs::read_to_string(data_dir.join("tlog").join("checkpoint")).await.ok()?;
    text.lines().nth(1)?.parse().ok()
}

/// A kind of account in one asset.
struct KindSum {
    kind: String,
    asset: String,
    accounts: u64,
    balance: i128,
    scale: u8,
}

fn kind_sums(books: &OpenBooks) -> Result<(Vec<KindSum>, bool), IndexError> {
    let trial = books.index.trial_balance(At::Newest)?;
    let scales: BTreeMap<&str, u8> =
        books.index.assets().iter().map(|asset| (asset.symbol.as_str(), asset.ledger_scale)).collect();
    let mut sums: BTreeMap<(&'static str, String), KindSum> = BTreeMap::new();
    for line in trial.lines {
        let scale = scales.get(line.asset.as_str()).copied().unwrap_or(0);
        let sum = sums.entry((line.kind.name(), line.asset.clone())).or_insert_with(|| KindSum {
            kind: line.kind.name().replace('_', " "),
            asset: line.asset.clone(),
            accounts: 0,
            balance: 0,
            scale,
        });
        sum.accounts += 1;
        sum.balance += line.balance.0;
    }
    let balanced = trial.sums.values().all(|sum| sum.is_zero());
    Ok((sums.into_values().collect(), balanced))
}

fn overview(books: &OpenBooks, signed: Option<u64>) -> Result<Markup, IndexError> {
    let position = books.position();
    let holds = books.index.holds(At::Newest)?;
    let (sums, balanced) = kind_sums(books)?;
    let oldest = holds.iter().map(|hold| hold.placed_leaf).min();
    Ok(html! {
        (head("Books", books))
        (find_form())
        dl.facts {
            div { dt { "Entries" } dd { (count(position.size)) } dd { "in " (count(position.commit)) " commits" } }
            div {
                dt { "Signed" }
                @match signed {
                    Some(signed) => { dd { (count(signed)) } dd { (unsigned_words(position.size, signed)) } }
                    None => { dd { "–" } dd { "no tree head here" } }
                }
            }
            div {
                dt { "Open holds" }
                dd { (count(holds.len() as u64)) }
                dd { @match oldest { Some(leaf) => { "oldest is entry " (entry_link(leaf)) } None => "nothing is being written" } }
            }
            div {
                dt { "Debits and credits" }
                dd { @if balanced { "agree" } @else { "differ" } }
                dd { @if balanced { (state(Shape::Ok, "sum is zero")) } @else { (state(Shape::Fail, "sum is not zero")) } }
            }
        }
        section.sheet aria-labelledby="kinds" {
            div.row { h2 #kinds { "By kind of account" } a href="/books/accounts" { "Every account" } }
            (scroll("Sums by kind of account", kinds_table(&sums)))
        }
        (holds_sheet(books, &holds))
        section.sheet aria-labelledby="log" {
            h2 #log { "The log and its proofs" }
            p { "Log " code { (books.index.origin()) } ". Entries are leaves of a public tree; its heads are signed." }
            p.row.left {
                a href="/tlog/checkpoint" { "Signed tree head" }
                a href={ "/books/entry/" (position.size.saturating_sub(1)) } { "Newest entry" }
                a href="/books/entry/0" { "First entry" }
            }
            p.s.q { "To check everything without this page: " code { "counterfoil audit fetch" } ", then " code { "audit verify" } " and " code { "audit replay" } "." }
        }
    })
}

fn unsigned_words(size: u64, signed: u64) -> String {
    match size.saturating_sub(signed) {
        0 => "all of them".to_owned(),
        more => format!("{} more since", count(more)),
    }
}

fn find_form() -> Markup {
    html! {
        form method="get" action="/books/find" role="search" {
            label for="find" { "Find an entry, account, job, batch, voucher or node" }
            div.box {
                input #find.m name="q" placeholder="1284031 or job_…" required;
                button.btn.p { "Find" }
            }
        }
    }
}

fn kinds_table(sums: &[KindSum]) -> Markup {
    html! {
        table {
            thead { tr {
                th scope="col" { "Kind" } th scope="col" { "Asset" }
                th.n scope="col" { "Accounts" } th.n scope="col" { "Debits less credits" }
            } }
            tbody {
                @for sum in sums {
                    tr {
                        th scope="row" { a href={ "/books/accounts?kind=" (sum.kind.replace(' ', "_")) } { (sum.kind) } }
                        td { (sum.asset) }
                        td.n { (count(sum.accounts)) }
                        td.n { (exact(&Amount(sum.balance).to_decimal_string(sum.scale))) }
                    }
                }
            }
        }
    }
}

fn holds_sheet(books: &OpenBooks, holds: &[projector::index::OpenHold]) -> Markup {
    html! {
        @if !holds.is_empty() {
            section.sheet aria-labelledby="holds" {
                h2 #holds { "Open holds" }
                (scroll("Open holds", html! {
                    table {
                        thead { tr { th scope="col" { "Placed by" } th scope="col" { "Job" } th.n scope="col" { "Held" } } }
                        tbody {
                            @for hold in holds.iter().take(50) {
                                tr {
                                    td { (entry_link(hold.placed_leaf)) }
                                    td { a href={ "/books/about/" (hold.job) } { code { (crate::figures::short(&hold.job.to_string())) } } }
                                    td.n { (books.index.money(hold.asset, hold.amount)) }
                                }
                            }
                        }
                    }
                }))
            }
        }
    }
}
