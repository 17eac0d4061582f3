//! The conversation's page as it arrives: model picker, box, meter, drawer. What moves in it is `assets/chat.js`.

use crate::Room;
use crate::error::PageError;
use crate::figures;
use crate::layout::{Here, Page};
use crate::viewer::{Viewer, accepted};
use axum::extract::State;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use protocol::amount::Amount;
use serde_json::Value;
use std::sync::Arc;

/// Bounds that a person can choose for an answer, tokens.
const LENGTHS: &[(u32, &str)] =
    &[(64, "Short, up to 64 tokens"), (256, "Medium, up to 256"), (1_024, "Long, up to 1 024")];
const LENGTH_FIRST: u32 = 256;

/// `GET /chat`
pub(crate) async fn show(State(room): State<Arc<Room>>, headers: HeaderMap) -> Result<Response, PageError> {
    let viewer = Viewer::required(&room, &headers).await?;
    let models = accepted(viewer.ask(&room, Method::GET, "/v1/models", None).await)?;
    let nodes = accepted(viewer.ask(&room, Method::GET, "/v1/nodes", None).await)?;
    let (available, asset) = viewer.available();
    let body = html! {
        nav.convs #convs aria-label="Conversations" {
            button.btn.p #fresh type="button" { "New conversation" }
            ul #list {}
            (keep())
        }
        div.talk {
            div.log #log data-account=(viewer.account) tabindex="0" role="log" aria-label="Conversation" aria-live="off" {
                div #turns {
                    h1.vh { "Chat" }
                    noscript {
                        div.note.w { p { "The chat needs JavaScript. All other pages are read without it." } }
                    }
                    div #empty.sheet {
                        h2 { "Ask something" }
                        p {
                            "You see the most it can cost before you send it. You have "
                            b.n { (available) @if !asset.is_empty() { " " (asset) } }
                            "."
                        }
                        p.q.s { "The node that answers sees your question." }
                    }
                }
            }
            (ask_form(&room, &models, &nodes, &available))
        }
        aside.drawer #receipt tabindex="-1" aria-labelledby="receipt-title" hidden {}
    };
    let page = Page {
        title: "Chat",
        here: Here::Chat,
        viewer: Some(&viewer),
        class: "chat",
        scripts: &["chat.js"],
        body,
    };
    Ok(page.into_response())
}

fn keep() -> Markup {
    html! {
        div.keep {
            label.check for="keep" {
                input #keep type="checkbox" checked;
                "Keep conversations in this browser"
            }
            p #kept { "They are never sent to us to be kept." }
            p { a href="/" { "About" } }
        }
    }
}

fn ask_form(room: &Room, models: &Value, nodes: &Value, available: &str) -> Markup {
    let served: Vec<&Value> = models["data"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|model| model["counterfoil"]["is_served_here"] == true)
        .collect();
    html! {
        form.ask #ask {
            div.pick {
                label.vh for="model" { "Model" }
                select #model name="model" {
                    @for model in &served { (option(model, nodes)) }
                }
                label.vh for="length" { "Longest answer" }
                select #length.lo name="length" {
                    @for (tokens, name) in LENGTHS {
                        option value=(tokens) selected[*tokens == LENGTH_FIRST] { (name) }
                    }
                }
                button.bare.ph #conversations type="button" aria-expanded="false" aria-controls="convs" { "Conversations" }
            }
            div.box {
                div {
                    label.vh for="q" { "Your message" }
                    textarea #q name="q" rows="2" placeholder="Ask something" autocomplete="off" {}
                }
                button.btn #send { "Send" }
            }
            dl.meter #meter {
                div { dt { "This message" } dd #cost { "at most 0.00" } }
                div { dt { "Lane" } dd #lane { (room.desk.lane()) } }
                div { dt { "Balance" } dd #left { (available) } }
                div { dt { "Refresh" } dd #refresh { "does not refresh" } }
            }
            p.vh #said role="status" {}
        }
    }
}

fn option(model: &Value, nodes: &Value) -> Markup {
    let id = model["id"].as_str().unwrap_or_default();
    let terms = &model["counterfoil"];
    let free = free_nodes(nodes, id);
    let per_million = per_million(terms);
    let free_words = match free {
        0 => "no node free".to_owned(),
        1 => "1 node free".to_owned(),
        more => format!("{more} nodes free"),
    };
    html! {
        option value=(id) data-price=(terms["price"]["amount"].as_str().unwrap_or("0")) {
            (id) " · " (per_million) " per million · " (free_words)
        }
    }
}

/// Digits that prices are read with: more than any asset has.
const PRICE_DECIMALS: u8 = 12;

/// What a million tokens cost, exactly.
pub(crate) fn per_million(terms: &Value) -> String {
    let per = i128::from(terms["per_units"].as_u64().unwrap_or(1).max(1));
    let decimal = terms["price"]["amount"].as_str().unwrap_or("0");
    let price = Amount::parse_decimal(decimal, PRICE_DECIMALS).unwrap_or(Amount::ZERO);
    let million = Amount(price.0.saturating_mul(1_000_000) / per);
    figures::exact(&million.to_decimal_string(PRICE_DECIMALS))
}

/// Nodes that would take the next request of a model.
pub(crate) fn free_nodes(nodes: &Value, model: &str) -> usize {
    let all = nodes["data"].as_array().into_iter().flatten();
    all.filter(|node| node["why"][model] == "eligible").count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_million_tokens_cost_what_one_does_a_million_times() {
        let terms = json!({"price": {"amount": "0.000004", "base_units": "4000"}, "per_units": 1});
        assert_eq!(per_million(&terms), "4.00");
        let terms = json!({"price": {"amount": "0.0012", "base_units": "1200000"}, "per_units": 1000});
        assert_eq!(per_million(&terms), "1.20");
    }

    #[test]
    fn only_eligible_nodes_are_free() {
        let nodes = json!({"data": [{"why": {"m": "eligible"}}, {"why": {"m": "full"}}, {"why": {"other": "eligible"}}]});
        assert_eq!((free_nodes(&nodes, "m"), free_nodes(&nodes, "none")), (1, 0));
    }
}
