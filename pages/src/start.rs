//! The first page; signing up with nothing, signing in with a recovery code, signing out. Every form works without script.

use crate::Room;
use crate::error::PageError;
use crate::figures;
use crate::layout::{Here, Page};
use crate::viewer::{self, Viewer};
use axum::Form;
use axum::extract::State;
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Redirect, Response};
use dispatcher::{Call, WelcomeLeft};
use ledger::query;
use maud::{Markup, html};
use protocol::amount::Amount;
use serde::Deserialize;
use std::sync::Arc;

/// `GET /`
pub(crate) async fn show(State(room): State<Arc<Room>>, headers: HeaderMap) -> Result<Response, PageError> {
    let viewer = Viewer::of(&room, &headers).await;
    let welcome = welcome(&room).await?;
    let body = html! {
        div.col {
            h1 { "Ask a question." br; "Keep the receipt." }
            p.q.lead {
                "Open models, run by independent operators. You pay by the token, you see the most an answer can cost \
                 before you send it, and every answer comes with a receipt you can check without trusting us."
            }
            @if viewer.is_some() {
                p { a.btn href="/chat" { "Go on chatting" } }
            } @else {
                (sign_up_sheet(welcome.as_ref()))
                p.s { "Been here before? " a href="/sign-in" { "Sign in with your recovery code" } "." }
            }
        }
        div.col { (example()) (promises()) }
    };
    let page = Page {
        title: "Ask, read, keep the receipt",
        here: Here::Elsewhere,
        viewer: viewer.as_ref(),
        class: "hero",
        scripts: &[],
        body,
    };
    Ok(page.into_response())
}

/// What a new person gets, in words.
struct WelcomeWords {
    amount: String,
    asset: String,
    life_days: u64,
    left: String,
    budget: String,
}

async fn welcome(room: &Room) -> Result<Option<WelcomeWords>, PageError> {
    let Some(WelcomeLeft { welcome, left }) = room.desk.welcome() else { return Ok(None) };
    let asset = room.desk.ledger().read(|state| query::assets(state).first().cloned()).await?;
    Ok(asset.map(|asset| {
        let shown = |amount: Amount| figures::exact(&amount.to_decimal_string(asset.ledger_scale));
        WelcomeWords {
            amount: shown(welcome.amount),
            left: shown(left),
            budget: shown(welcome.budget),
            asset: asset.symbol.clone(),
            life_days: welcome.life_s / 86_400,
        }
    }))
}

fn sign_up_sheet(welcome: Option<&WelcomeWords>) -> Markup {
    html! {
        section.sheet aria-labelledby="start" {
            h2 #start {
                @match welcome {
                    Some(welcome) => { "Start with " (welcome.amount) " " (welcome.asset) }
                    None => "Start with an empty account"
                }
            }
            form method="post" action="/start" {
                button.btn { "Start now" }
                small.q {
                    "No e-mail, no wallet, no name. You get a recovery code, 24 letters and digits, to write down: it is \
                     the only way back in on another device. "
                    @if let Some(welcome) = welcome {
                        "This first credit is spent within " (welcome.life_days) " days and cannot be withdrawn. "
                        (welcome.left) " of " (welcome.budget) " " (welcome.asset) " are left for newcomers."
                    } @else {
                        "Credit comes by a deposit from a wallet; the page shows how."
                    }
                }
            }
        }
    }
}

fn example() -> Markup {
    html! {
        article.cf aria-label="Example of an answer and its receipt" {
            div {
                p.no { "No. 1 284 031" }
                p.big { "0.00568" }
                dl.kv.r {
                    dt { "tokens in" } dd { "312" }
                    dt { "out" } dd { "1 108" }
                    dt { "per million" } dd { "4.00" }
                }
                p.stampd { "✓ Verified" }
            }
            div {
                p.q { "You ask" }
                p { "What is a counterfoil?" }
                p.q { "A node answers" }
                p {
                    "The part of a cheque or ticket that stays in the book when the rest is torn off. It repeats the \
                     number, the date and the amount, so that either half can be checked against the other."
                }
                p.q { "An example; the figures are invented." }
            }
        }
    }
}

fn promises() -> Markup {
    html! {
        div.note.s {
            p {
                b { "What we do not promise. " }
                "The node that answers sees your question. Deposits sit in a contract we cannot take from; counting tokens \
                 happens off the chain, so it is checkable after the fact."
            }
        }
    }
}

/// `POST /start`
pub(crate) async fn sign_up(
    State(room): State<Arc<Room>>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    viewer::check_origin(&room, &headers)?;
    let signed_up = room.desk.sign_up().await?;
    let body = html! {
        section.sheet aria-labelledby="code" {
            h1 #code { "Your recovery code" }
            p.code { (signed_up.recovery_code) }
            p {
                "Write it down now. It is shown once, we keep only a hash of it, and without it nobody, we included, can \
                 open this account on another device."
            }
            p.q.s { "This browser stays signed in for 90 days. Account " code { (signed_up.account) } }
            div.row.left { a.btn href="/chat" { "I have written it down" } }
        }
    };
    let page = Page {
        title: "Your recovery code",
        here: Here::Elsewhere,
        viewer: None,
        class: "",
        scripts: &[],
        body,
    };
    let mut response = page.into_response();
    if let Some(cookie) = viewer::session_cookie(&signed_up.session, &headers) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// `GET /sign-in`
pub(crate) async fn sign_in_page(State(room): State<Arc<Room>>, headers: HeaderMap) -> Response {
    if Viewer::of(&room, &headers).await.is_some() {
        return Redirect::to("/chat").into_response();
    }
    sign_in_form(None)
}

fn sign_in_form(wrong: Option<&str>) -> Response {
    let body = html! {
        div.two {
            section.sheet aria-labelledby="in" {
                h1 #in { "Sign in" }
                @if let Some(wrong) = wrong { div.note.b role="alert" { p { (wrong) } } }
                form method="post" action="/sign-in" {
                    label for="recovery" {
                        "Recovery code"
                        small { "24 letters and digits; case, spaces and hyphens do not matter." }
                        input #recovery.m name="code" autocomplete="current-password" required autocapitalize="characters" spellcheck="false";
                    }
                    button.btn { "Sign in" }
                }
            }
            section.sheet aria-labelledby="new" {
                h2 #new { "No account yet" }
                p { "It takes one button and nothing about you." }
                form method="post" action="/start" { button.btn.p { "Start now" } }
            }
        }
    };
    Page { title: "Sign in", here: Here::Elsewhere, viewer: None, class: "", scripts: &[], body }
        .into_response()
}

/// The form of the sign-in page.
#[derive(Deserialize)]
pub(crate) struct SignIn {
    code: String,
}

/// `POST /sign-in`
pub(crate) async fn sign_in(
    State(room): State<Arc<Room>>,
    headers: HeaderMap,
    Form(form): Form<SignIn>,
) -> Result<Response, PageError> {
    viewer::check_origin(&room, &headers)?;
    match room.desk.sign_in(&form.code).await {
        Ok(session) => {
            let mut response = Redirect::to("/chat").into_response();
            if let Some(cookie) = viewer::session_cookie(&session, &headers) {
                response.headers_mut().insert(header::SET_COOKIE, cookie);
            }
            Ok(response)
        }
        Err(error) => Ok((error.status, sign_in_form(Some(&error.message))).into_response()),
    }
}

/// `POST /sign-out`: ends the session here and at the gateway.
pub(crate) async fn sign_out(
    State(room): State<Arc<Room>>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    viewer::check_origin(&room, &headers)?;
    if let Some((_, session)) = room.desk.visitor(&headers) {
        let path = "/v1/people/sessions";
        room.desk.call(Call { method: Method::DELETE, path, bearer: Some(&session), body: None }).await;
    }
    let mut response = Redirect::to("/").into_response();
    if let Some(cookie) = viewer::no_cookie(&headers) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}
