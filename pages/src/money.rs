//! One person's money: every bucket and hold, wallet and withdrawal, keys, usage, statement. Forms for keys need no script;
//! what a wallet signs does.

mod keys;
mod usage;

use crate::Room;
use crate::books::statement_table;
use crate::error::PageError;
use crate::figures::{self, count, distance, exact, now_us, short, utc};
use crate::layout::{Here, Page, scroll};
use crate::viewer::{Viewer, accepted};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ledger::query::{self, JobView};
use maud::{Markup, html};
use projector::At;
use projector::index::Range;
use projector::statements::StatementLine;
use protocol::asset::Asset;
use serde_json::Value;
use std::sync::Arc;

/// Lines of the statement on the page; the file has all.
const LINES_SHOWN: usize = 20;

/// The routes of one's own money.
pub(crate) fn routes() -> Router<Arc<Room>> {
    Router::new()
        .route("/money", get(show))
        .route("/money/statement.csv", get(statement))
        .route("/money/keys", post(keys::create))
        .route("/money/keys/revoke", post(keys::revoke))
}

/// `GET /money`
async fn show(State(room): State<Arc<Room>>, headers: HeaderMap) -> Result<Response, PageError> {
    let viewer = Viewer::required(&room, &headers).await?;
    page(&room, &viewer, None).await
}

/// The page; after a key was made, with the one look at it.
async fn page(room: &Room, viewer: &Viewer, notice: Option<Markup>) -> Result<Response, PageError> {
    let account = viewer.account;
    let keys = accepted(viewer.ask(room, Method::GET, "/v1/keys", None).await)?;
    let chain = viewer.ask(room, Method::GET, "/v1/chain", None).await;
    let chain = chain.status.is_success().then_some(chain.body);
    let read = room.desk.ledger().read(move |state| {
        let open: Vec<JobView> =
            query::open_jobs(state).into_iter().filter(|job| job.account == account).collect();
        (open, query::assets(state).to_vec())
    });
    let (holds, assets) = read.await?;
    let booked = usage::booked(room, account).await.ok();
    let body = html! {
        div.head {
            h1 { "Money" }
            p.asof { "as of size " b.n { (count(viewer.balance["at_size"].as_u64().unwrap_or(0))) } }
        }
        @if let Some(notice) = notice { (notice) }
        (totals(viewer))
        (buckets(viewer))
        (holds_sheet(&holds, &assets))
        @match &booked {
            Some(booked) => { (usage::sheet(booked)) (statement_sheet(&booked.newest)) }
            None => { div.note { p { "Usage and statement are kept by another process of this network." } } }
        }
        div.two {
            (wallet_sheet(viewer, chain.as_ref()))
            (leave_sheet(chain.as_ref()))
        }
        (keys::sheet(&keys))
        (account_sheet(viewer))
    };
    let page = Page {
        title: "Money",
        here: Here::Money,
        viewer: Some(viewer),
        class: "",
        scripts: &["wallet.js"],
        body,
    };
    Ok(page.into_response())
}

fn totals(viewer: &Viewer) -> Markup {
    let balances: Vec<&Value> = viewer.balance["balances"].as_array().into_iter().flatten().collect();
    html! {
        @if balances.is_empty() {
            div.sheet {
                h2 { "Nothing here yet" }
                p { "Credit appears here when a deposit is confirmed on the chain." }
            }
        }
        @for balance in balances {
            @let figure = |key: &str| exact(balance[key].as_str().unwrap_or("0"));
            dl.facts aria-label={ "Totals in " (balance["asset"].as_str().unwrap_or("")) } {
                div { dt { "Available" } dd { (figure("available")) } dd { (balance["asset"].as_str().unwrap_or("")) } }
                div { dt { "Held" } dd { (figure("held")) } dd { "for answers being written" } }
                div { dt { "Set aside" } dd { (figure("reserved_for_withdrawal")) } dd { "for withdrawals" } }
                div {
                    dt { "Owed" } dd { (figure("owed")) }
                    dd { @if balance["owed"].as_str().is_some_and(|owed| owed.bytes().all(|b| b == b'0' || b == b'.')) { "nothing is owed" } @else { "is repaid by the next deposit" } }
                }
            }
        }
    }
}

fn source_words(source: &str) -> &str {
    match source {
        "deposited" => "deposit",
        "package" => "package",
        "earned" => "earned by serving",
        "allotment" => "day's allotment",
        "promo" => "given at sign-up or as a promotion",
        "credit_line" => "credit line",
        other => other,
    }
}

fn buckets(viewer: &Viewer) -> Markup {
    let now = now_us();
    let balances = viewer.balance["balances"].as_array().into_iter().flatten();
    html! {
        section.sheet aria-labelledby="buckets" {
            h2 #buckets { "Buckets, in the order they are spent" }
            (scroll("Buckets", html! {
                table {
                    thead { tr {
                        th.n.lo scope="col" { "No." } th scope="col" { "From" } th.n scope="col" { "Left" }
                        th.n.lo scope="col" { "Held" } th.n scope="col" { "Spendable" } th scope="col" { "Ends" }
                    } }
                    tbody {
                        @for balance in balances {
                            @for bucket in balance["buckets"].as_array().into_iter().flatten() {
                                @let figure = |key: &str| exact(bucket[key].as_str().unwrap_or("0"));
                                tr {
                                    td.n.lo { (bucket["grant"].as_u64().unwrap_or(0)) }
                                    td {
                                        (source_words(bucket["source"].as_str().unwrap_or("")))
                                        @if bucket["backing"] == "unbacked" { " " span.q.s { "(cannot be withdrawn)" } }
                                    }
                                    td.n { (figure("remaining")) }
                                    td.n.lo { (figure("held")) }
                                    td.n { (figure("spendable")) }
                                    td.when {
                                        @match bucket["expires_us"].as_u64() {
                                            Some(end) => { (utc(end)) " (" (distance(now, end)) ")" }
                                            None => "does not end"
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }))
        }
    }
}

fn holds_sheet(holds: &[JobView], assets: &[Asset]) -> Markup {
    html! {
        @if !holds.is_empty() {
            section.sheet aria-labelledby="holds" {
                h2 #holds { "Held now" }
                p.s.q { "What an answer does not use comes back when it ends." }
                (scroll("Held now", html! {
                    table {
                        thead { tr { th scope="col" { "Answer" } th scope="col" { "Model" } th.n scope="col" { "Held" } th scope="col" { "Until at the latest" } } }
                        tbody {
                            @for job in holds {
                                @let scale = assets.get(job.asset.0 as usize).map_or(0, |asset| asset.ledger_scale);
                                tr {
                                    td { code { (short(&job.job.to_string())) } }
                                    td { (job.model) }
                                    td.n { (exact(&job.amount.to_decimal_string(scale))) }
                                    td.when { (utc(job.due_us)) }
                                }
                            }
                        }
                    }
                }))
            }
        }
    }
}

fn statement_sheet(lines: &[StatementLine]) -> Markup {
    html! {
        section.sheet aria-labelledby="statement" {
            div.row { h2 #statement { "Statement" } a href="/money/statement.csv" { "Download all as CSV" } }
            (statement_table(lines))
        }
    }
}

/// A decimal of vault units.
fn units(value: &Value) -> String {
    let units = value.as_u64().unwrap_or(0);
    exact(&protocol::amount::Amount(i128::from(units)).to_decimal_string(protocol::asset::VAULT_SCALE))
}

fn wallet_sheet(viewer: &Viewer, chain: Option<&Value>) -> Markup {
    let wallets: Vec<&Value> = viewer.balance["wallets"].as_array().into_iter().flatten().collect();
    html! {
        section.sheet aria-labelledby="deposit" {
            h2 #deposit { "Deposit from a wallet" }
            @if let Some(chain) = chain {
                @for wallet in &wallets {
                    dl.kv {
                        dt { "wallet" } dd.m { (wallet["wallet"].as_str().unwrap_or("")) }
                        dt { "deposited" } dd.n { (units(&wallet["deposited_units"])) }
                        dt { "may be charged up to" } dd.n { (units(&wallet["cap_units"])) ", until " (utc(wallet["valid_until_s"].as_u64().unwrap_or(0) * 1_000_000)) }
                        dt { "charged so far" } dd.n { (units(&wallet["charged_units"])) }
                    }
                }
                p.s { "Your wallet signs once what may be charged at most; then it deposits. What is not charged stays yours in the contract." }
                form #fund {
                    label for="amount" { "Amount" small { "In whole tokens, at most six decimals." } input #amount.n name="amount" inputmode="decimal" value="5" required; }
                    button.btn.p #connect { "Sign and deposit with my wallet" }
                }
                p #fund-said role="status" {}
                noscript { p.s { "Without JavaScript: " code { "POST /v1/authorisations" } ", then deposit in the vault." } }
                p.s.q { "A deposit counts after " (chain["confirmations"].as_u64().unwrap_or(0)) " blocks." }
            } @else {
                p { "This network has no vault on a chain; credit is given by its administration." }
            }
        }
    }
}

fn leave_sheet(chain: Option<&Value>) -> Markup {
    html! {
        section.sheet aria-labelledby="leave" {
            h2 #leave { "Withdraw, and leave without us" }
            @if let Some(chain) = chain {
                form #withdraw {
                    label for="take" { "Amount to withdraw" small { "Out of deposits; what was given cannot be withdrawn." } input #take.n name="take" inputmode="decimal" required; }
                    button.btn.p { "Get a voucher" }
                }
                div #withdraw-said role="status" {}
                p { "If this page is gone, your wallet alone gets the deposit out: ask the vault for an exit, wait, take everything." }
                pre tabindex="0" aria-label="Commands to leave without us" {
                    "counterfoil exit request --rpc URL \\\n  --vault " (chain["contracts"]["vault"].as_str().unwrap_or("")) " --key-file KEY\n"
                    "counterfoil exit finalize --rpc URL \\\n  --vault " (chain["contracts"]["vault"].as_str().unwrap_or("")) " --key-file KEY"
                }
            } @else {
                p { "There is nothing on a chain to leave with." }
            }
        }
    }
}

fn account_sheet(viewer: &Viewer) -> Markup {
    html! {
        section.sheet aria-labelledby="account" {
            h2 #account { "This account" }
            p.m { (viewer.account) }
            p.s.q { "No name and no address is kept. Whoever has the recovery code has the account." }
            form method="post" action="/sign-out" { button.btn.p { "Sign out of this browser" } }
        }
    }
}

/// `GET /money/statement.csv`: every line of the caller's statement, oldest first.
async fn statement(State(room): State<Arc<Room>>, headers: HeaderMap) -> Result<Response, PageError> {
    let viewer = Viewer::required(&room, &headers).await?;
    let account = viewer.account;
    let text = room.books.ask(&room.desk, move |books| {
        let parts = books.index.owner_statement(account, &Range::until(At::Newest))?;
        let mut text = format!("# {account} as of size {}\r\n", books.position().size);
        text.push_str("entry,time,what,amount,balance,asset,account\r\n");
        for part in parts {
            let line = part.line(&books.index);
            let (time, what) = (&line.time, line.text);
            let row = format!(
                "{},{time},{what},{},{},{},{}",
                line.leaf, line.amount, line.balance, line.asset, line.account
            );
            text.push_str(&row);
            text.push_str("\r\n");
        }
        Ok(text)
    });
    let mut response = text.await?.into_response();
    let answer = response.headers_mut();
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    let name = format!("attachment; filename=\"statement-{}.csv\"", figures::now_us() / 1_000_000);
    if let Ok(name) = HeaderValue::from_str(&name) {
        answer.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}
