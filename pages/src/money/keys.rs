//! Keys for programs: made with scopes and a cap, shown once, revoked at once. Plain forms.

use crate::Room;
use crate::error::PageError;
use crate::figures::utc;
use crate::layout::scroll;
use crate::viewer::{self, Viewer, accepted};
use axum::Form;
use axum::extract::State;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// The form that makes a key. A box that is not ticked is not sent.
#[derive(Deserialize)]
pub(super) struct NewKey {
    name: String,
    #[serde(default)]
    cap: String,
    inference: Option<String>,
    read: Option<String>,
    manage: Option<String>,
}

/// `POST /money/keys`
pub(super) async fn create(
    State(room): State<Arc<Room>>,
    headers: HeaderMap,
    Form(form): Form<NewKey>,
) -> Result<Response, PageError> {
    viewer::check_origin(&room, &headers)?;
    let viewer = Viewer::required(&room, &headers).await?;
    let ticked = [("inference", &form.inference), ("read", &form.read), ("manage", &form.manage)];
    let scopes: Vec<&str> = ticked.iter().filter(|(_, box_)| box_.is_some()).map(|(name, _)| *name).collect();
    let mut body = json!({ "name": form.name.trim(), "scopes": scopes });
    if !form.cap.trim().is_empty() {
        body["spend_cap"] = json!({ "amount": form.cap.trim() });
    }
    let made = accepted(viewer.ask(&room, Method::POST, "/v1/keys", Some(body)).await)?;
    let notice = html! {
        section.sheet aria-labelledby="made" {
            h2 #made { "Your new key" }
            p.code { (made["api_key"].as_str().unwrap_or("")) }
            p { "Copy it now; it is shown once and we keep only a hash of it." }
        }
    };
    super::page(&room, &viewer, Some(notice)).await
}

/// The form beside a key.
#[derive(Deserialize)]
pub(super) struct Revoke {
    id: String,
}

/// `POST /money/keys/revoke`
pub(super) async fn revoke(
    State(room): State<Arc<Room>>,
    headers: HeaderMap,
    Form(form): Form<Revoke>,
) -> Result<Response, PageError> {
    viewer::check_origin(&room, &headers)?;
    let viewer = Viewer::required(&room, &headers).await?;
    let id: String = form.id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    accepted(viewer.ask(&room, Method::DELETE, &format!("/v1/keys/{id}"), None).await)?;
    Ok(Redirect::to("/money#keys").into_response())
}

/// The account's keys and the form for a new one.
pub(super) fn sheet(keys: &Value) -> Markup {
    let keys: Vec<&Value> = keys["data"].as_array().into_iter().flatten().collect();
    html! {
        section.sheet aria-labelledby="keys" {
            h2 #keys { "Keys for programs" }
            @if keys.is_empty() {
                p { "No key yet. A program that speaks OpenAI's API uses one with this network's address." }
            } @else {
                (scroll("Keys", html! {
                    table {
                        thead { tr {
                            th scope="col" { "Name" } th scope="col" { "Begins with" } th scope="col" { "May" }
                            th.lo scope="col" { "Made" } th scope="col" { span.vh { "Revoke" } }
                        } }
                        tbody { @for key in keys { (key_row(key)) } }
                    }
                }))
            }
            details {
                summary { "Make a key" }
                form method="post" action="/money/keys" {
                    label for="key-name" { "Name" input #key-name name="name" required maxlength="100"; }
                    fieldset {
                        legend { "It may" }
                        label.check { input type="checkbox" name="inference" checked; "ask models" }
                        label.check { input type="checkbox" name="read" checked; "read balance and receipts" }
                        label.check { input type="checkbox" name="manage"; "manage keys, wallets and nodes" }
                    }
                    label for="key-cap" { "All it may ever spend" small { "Empty: as much as the account has." } input #key-cap.n name="cap" inputmode="decimal"; }
                    button.btn { "Make the key" }
                }
            }
        }
    }
}

fn key_row(key: &Value) -> Markup {
    let name = key["name"].as_str().unwrap_or("");
    let scopes: Vec<&str> =
        key["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    html! {
        tr {
            th scope="row" { (name) }
            td { code { (key["prefix"].as_str().unwrap_or("")) "…" } }
            td { (scopes.join(", ")) @if !key["spender"].is_null() { ", capped" } }
            td.when.lo { (utc(key["created_us"].as_u64().unwrap_or(0))) }
            td {
                form.inline method="post" action="/money/keys/revoke" {
                    input type="hidden" name="id" value=(key["id"].as_str().unwrap_or(""));
                    button.bare { "Revoke" span.vh { " " (name) } }
                }
            }
        }
    }
}
