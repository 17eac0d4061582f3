//! Lists of the books: ledger accounts, one account's statement, jobs, batches with their lines. Newest first where there
//! is a time; bounded, and they say so.

use super::{admitted, entry_link, head};
use crate::Room;
use crate::error::PageError;
use crate::figures::{count, exact, short, utc};
use crate::layout::{Here, Page, State as Shape, scroll, state};
use crate::viewer::Viewer;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use ledger::query::{self, BatchState, BatchView, JobStatus, JobView};
use maud::{Markup, html};
use projector::At;
use projector::index::Range;
use projector::statements::StatementLine;
use protocol::amount::Amount;
use protocol::asset::{Asset, VAULT_SCALE};
use protocol::id::{AccountId, BatchId};
use serde::Deserialize;
use std::sync::Arc;

/// Lines of one page at most.
const LINES_MAX: usize = 200;
/// How far back charged jobs are looked for, entries.
const JOBS_BACK_LEAVES: u64 = 50_000;

#[derive(Deserialize)]
pub(super) struct OfKind {
    kind: Option<String>,
}

async fn shown(room: &Room, headers: &HeaderMap, title: &str, body: Markup) -> Response {
    let viewer = Viewer::of(room, headers).await;
    Page { title, here: Here::Books, viewer: viewer.as_ref(), class: "", scripts: &[], body }.into_response()
}

/// `GET /books/accounts`
pub(super) async fn accounts(
    State(room): State<Arc<Room>>,
    Query(asked): Query<OfKind>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    if let Err(asks) = admitted(&room, &headers).await {
        return Ok(asks);
    }
    let body = room.books.ask(&room.desk, move |books| {
        let trial = books.index.trial_balance(At::Newest)?;
        let fits = |name: &str| asked.kind.as_ref().is_none_or(|kind| kind == name);
        let lines: Vec<_> = trial.lines.iter().filter(|line| fits(line.kind.name())).collect();
        Ok(html! {
            (head("Accounts", books))
            section.sheet aria-labelledby="all" {
                h2 #all { (count(lines.len() as u64)) " ledger accounts" @if let Some(kind) = &asked.kind { ", " (kind.replace('_', " ")) } }
                (scroll("Ledger accounts", html! {
                    table {
                        caption { "Debits less credits; at most " (LINES_MAX) " lines" }
                        thead { tr { th.n scope="col" { "No." } th scope="col" { "Account" } th.n scope="col" { "Balance" } } }
                        tbody {
                            @for line in lines.iter().take(LINES_MAX) {
                                tr {
                                    td.n { (line.number) }
                                    td { (account_name(&line.account)) }
                                    td.n { (exact(&line.balance_decimal)) }
                                }
                            }
                        }
                    }
                }))
            }
        })
    });
    Ok(shown(&room, &headers, "Accounts", body.await?).await)
}

/// `kind:ASSET:acct_…`, linked to its owner.
fn account_name(name: &str) -> Markup {
    let mut parts = name.splitn(3, ':');
    let (kind, asset, owner) = (parts.next().unwrap_or(name), parts.next().unwrap_or(""), parts.next());
    html! {
        (kind.replace('_', " ")) " " (asset) " "
        @if let Some(owner) = owner { a href={ "/books/account/" (owner) } { code { (short(owner)) } } }
    }
}

/// `GET /books/account/{account}`
pub(super) async fn account(
    State(room): State<Arc<Room>>,
    Path(account): Path<String>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    if let Err(asks) = admitted(&room, &headers).await {
        return Ok(asks);
    }
    let id: AccountId =
        account.parse().map_err(|_| PageError::Missing(format!("No account is called {account:?}.")))?;
    let body = room.books.ask(&room.desk, move |books| {
        let range = Range { lines_max: LINES_MAX, ..Range::until(At::Newest) };
        let parts = books.index.owner_statement(id, &range)?;
        let lines: Vec<StatementLine> = parts.iter().rev().map(|part| part.line(&books.index)).collect();
        Ok(html! {
            (head("Account", books))
            section.sheet aria-labelledby="statement" {
                h2 #statement.m { (id) }
                p.s { a href={ "/books/about/" (id) } { "When it was opened, capped, closed" } }
                (statement_table(&lines))
            }
        })
    });
    Ok(shown(&room, &headers, "Account", body.await?).await)
}

/// Lines of a statement, from its owner's side.
pub(crate) fn statement_table(lines: &[StatementLine]) -> Markup {
    html! {
        @if lines.is_empty() {
            p { "Nothing was booked yet." }
        } @else {
            (scroll("Booked lines", html! {
                table {
                    caption { "Newest first; plus is more for the owner" }
                    thead { tr {
                        th scope="col" { "Entry" } th scope="col" { "When" } th scope="col" { "What" }
                        th.n scope="col" { "Amount" } th.n.lo scope="col" { "Balance" } th scope="col" { "Asset" }
                    } }
                    tbody {
                        @for line in lines {
                            tr {
                                td { a.proof href={ "/books/entry/" (line.leaf) } { (count(line.leaf)) } }
                                td.when { (line.time.get(..16).unwrap_or(&line.time).replace('T', " ")) }
                                td { (line.text) }
                                td.n { (exact(&line.amount)) }
                                td.n.lo { (exact(&line.balance)) }
                                td { (line.asset) }
                            }
                        }
                    }
                }
            }))
        }
    }
}

/// `GET /books/jobs`
pub(super) async fn jobs(State(room): State<Arc<Room>>, headers: HeaderMap) -> Result<Response, PageError> {
    if let Err(asks) = admitted(&room, &headers).await {
        return Ok(asks);
    }
    let read = room.desk.ledger().read(|state| {
        let first = state.next_leaf().saturating_sub(JOBS_BACK_LEAVES).checked_sub(1);
        let ended = query::captures_after(state, first, JOBS_BACK_LEAVES as usize);
        let newest = ended.iter().rev().take(LINES_MAX);
        let mut jobs: Vec<JobView> = query::open_jobs(state);
        jobs.extend(newest.filter_map(|(_, job)| query::job(state, *job)));
        jobs.truncate(LINES_MAX);
        (jobs, query::assets(state).to_vec())
    });
    let (jobs, assets) = read.await?;
    let body = room
        .books
        .ask(&room.desk, move |books| Ok(html! { (head("Jobs", books)) (jobs_sheet(&jobs, &assets)) }));
    Ok(shown(&room, &headers, "Jobs", body.await?).await)
}

fn jobs_sheet(jobs: &[JobView], assets: &[Asset]) -> Markup {
    html! {
        section.sheet aria-labelledby="jobs" {
            h2 #jobs { "Running and newest" }
            @if jobs.is_empty() {
                p { "No question was asked yet. Each one appears here when it is admitted." }
            } @else {
                (scroll("Jobs", html! {
                    table {
                        caption { "At most " (LINES_MAX) "; finished and settled ones are found by their number" }
                        thead { tr {
                            th scope="col" { "Job" } th scope="col" { "State" } th scope="col" { "Model" }
                            th.n scope="col" { "Held" } th.n scope="col" { "Charged" } th scope="col" { "Entry" }
                        } }
                        tbody { @for job in jobs { (job_row(job, assets)) } }
                    }
                }))
            }
        }
    }
}

fn job_row(job: &JobView, assets: &[Asset]) -> Markup {
    let scale = assets.get(job.asset.0 as usize).map_or(0, |asset| asset.ledger_scale);
    let decimal = |amount: Amount| exact(&amount.to_decimal_string(scale));
    let (shape, word) = match job.status {
        JobStatus::Running => (Shape::Wait, "running"),
        JobStatus::Captured => (Shape::Ok, "charged"),
        JobStatus::Voided => (Shape::Off, "released"),
        JobStatus::Expired => (Shape::Off, "expired"),
    };
    html! {
        tr {
            td { a href={ "/books/about/" (job.job) } { code { (short(&job.job.to_string())) } } }
            td { (state(shape, word)) }
            td { (job.model) }
            td.n { (decimal(job.amount)) }
            td.n { @match &job.charge { Some(charge) => (decimal(charge.cost)), None => "–" } }
            td { @if let Some(charge) = &job.charge { (entry_link(charge.leaf)) } }
        }
    }
}

/// `GET /books/batches`
pub(super) async fn batches(
    State(room): State<Arc<Room>>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    if let Err(asks) = admitted(&room, &headers).await {
        return Ok(asks);
    }
    let batches = room.desk.ledger().read(query::batches).await?;
    let body = room.books.ask(&room.desk, move |books| Ok(html! {
        (head("Batches", books))
        section.sheet aria-labelledby="batches" {
            h2 #batches { "Settlement batches" }
            @if batches.is_empty() {
                p { "No batch was closed yet. Charges of deposits are settled once an epoch." }
            } @else {
                (scroll("Settlement batches", html! {
                    table {
                        thead { tr {
                            th scope="col" { "Batch" } th scope="col" { "Closed" } th scope="col" { "State" }
                            th.n scope="col" { "Charged" } th.n scope="col" { "Payees" } th scope="col" { "Entry" }
                        } }
                        tbody { @for batch in batches.iter().rev().take(LINES_MAX) { (batch_row(batch)) } }
                    }
                }))
            }
        }
    }));
    Ok(shown(&room, &headers, "Batches", body.await?).await)
}

fn batch_state(batch: &BatchView) -> Markup {
    match batch.state {
        BatchState::Closed => state(Shape::Wait, "closed"),
        BatchState::Submitted => state(Shape::Wait, "sent to the chain"),
        BatchState::Confirmed => state(Shape::Ok, "final on the chain"),
        BatchState::Failed => state(Shape::Fail, "failed"),
    }
}

fn units(units: u64) -> String {
    exact(&Amount(i128::from(units)).to_decimal_string(VAULT_SCALE))
}

fn batch_row(batch: &BatchView) -> Markup {
    html! {
        tr {
            td { a href={ "/books/batch/" (batch.batch) } { (batch.number) } }
            td.when { (utc(batch.closed_us)) }
            td { (batch_state(batch)) }
            td.n { (units(batch.charged_units)) }
            td.n { (batch.payouts.len()) }
            td { (entry_link(batch.closed_leaf)) }
        }
    }
}

/// `GET /books/batch/{batch}`
pub(super) async fn batch(
    State(room): State<Arc<Room>>,
    Path(batch): Path<String>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    if let Err(asks) = admitted(&room, &headers).await {
        return Ok(asks);
    }
    let missing = || PageError::Missing(format!("No batch is called {batch:?}."));
    let id: BatchId = batch.parse().map_err(|_| missing())?;
    let read = room.desk.ledger().read(move |state| {
        let view = query::batch(state, id)?;
        let asset = query::assets(state).get(view.asset.0 as usize)?.clone();
        Some((view, query::batch_requests(state, id), asset))
    });
    let (view, requests, asset) = read.await?.ok_or_else(missing)?;
    let body = room.books.ask(&room.desk, move |books| {
        Ok(html! {
            (head("Batch", books))
            (batch_sheet(&view))
            (requests_sheet(&requests, &asset))
        })
    });
    Ok(shown(&room, &headers, "Batch", body.await?).await)
}

fn batch_sheet(view: &BatchView) -> Markup {
    html! {
        section.sheet aria-labelledby="batch" {
            h2 #batch { "Batch " (view.number) }
            dl.kv {
                dt { "state" } dd { (batch_state(view)) }
                dt { "closed" } dd { (utc(view.closed_us)) ", entry " (entry_link(view.closed_leaf)) }
                dt { "settles entries before" } dd { (count(view.cutoff_leaf)) }
                @if let Some(sent) = &view.submitted {
                    dt { "payout root" } dd.m { (sent.payout_root) }
                    dt { "commitment" } dd.m { (sent.commitment) }
                    dt { "tree" } dd { "size " (count(sent.tlog_size)) }
                }
                @if let Some(tx) = view.confirmed_tx { dt { "transaction" } dd.m { (tx) } }
            }
            (scroll("Charges of the batch", html! {
                table {
                    caption { "What is taken from deposits" }
                    thead { tr { th scope="col" { "Wallet" } th.n scope="col" { "Taken now" } th.n scope="col" { "Since the beginning" } } }
                    tbody { @for charge in &view.charges { tr { td.m { (charge.wallet) } td.n { (units(charge.added_units)) } td.n { (units(charge.cumulative_units)) } } } }
                    tfoot { tr { th scope="row" { "Charged" } td.n { (units(view.charged_units)) } td {} } }
                }
            }))
            (scroll("Payouts of the batch", html! {
                table {
                    caption { "Who is paid" }
                    thead { tr { th scope="col" { "Address" } th.n scope="col" { "Now" } th.n scope="col" { "Since the beginning" } } }
                    tbody { @for payout in &view.payouts { tr { td.m { (payout.address) } td.n { (units(payout.added_units)) } td.n { (units(payout.cumulative_units)) } } } }
                }
            }))
        }
    }
}

fn requests_sheet(requests: &[query::RequestLine], asset: &Asset) -> Markup {
    html! {
        section.sheet aria-labelledby="lines" {
            h2 #lines { (count(requests.len() as u64)) " served requests" }
            (scroll("Served requests", html! {
                table {
                    caption { "In the order of their charges; at most " (LINES_MAX) }
                    thead { tr { th scope="col" { "Job" } th scope="col" { "Paid to" } th.n scope="col" { "Earned, " (asset.symbol) } } }
                    tbody {
                        @for line in requests.iter().take(LINES_MAX) {
                            tr {
                                td { a href={ "/books/about/" (line.job) } { code { (short(&line.job.to_string())) } } }
                                td.m { (short(&line.payout_address.to_string())) }
                                td.n { (exact(&line.amount.to_decimal_string(asset.ledger_scale))) }
                            }
                        }
                    }
                }
            }))
        }
    }
}
