//! Public status: models with their rates and free nodes, nodes with the one reason why they are or are not routed, how
//! much was answered. For everybody; no account, no address of a person.

use crate::Room;
use crate::chat::{free_nodes, per_million};
use crate::error::PageError;
use crate::figures::{count, short};
use crate::layout::{Here, Page, State as Shape, scroll, state};
use crate::nodes::reason_words;
use crate::viewer::{Viewer, accepted};
use axum::extract::State;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use dispatcher::Call;
use maud::{Markup, html};
use serde_json::Value;
use std::sync::Arc;

async fn public(room: &Room, path: &str) -> Result<Value, PageError> {
    accepted(room.desk.call(Call { method: Method::GET, path, bearer: None, body: None }).await)
}

/// `GET /network`
pub(crate) async fn show(State(room): State<Arc<Room>>, headers: HeaderMap) -> Result<Response, PageError> {
    let viewer = Viewer::of(&room, &headers).await;
    let models = public(&room, "/v1/models").await?;
    let nodes = public(&room, "/v1/nodes").await?;
    let chain = public(&room, "/v1/chain").await.ok();
    let size = room.desk.ledger().position().borrow().leaf;
    let online = nodes["data"].as_array().map_or(0, |all| all.iter().filter(|n| n["online"] == true).count());
    let body = html! {
        div.head {
            h1 { "Network" }
            p.asof { "as of size " b.n { (count(size)) } }
        }
        dl.facts {
            div { dt { "Nodes online" } dd { (online) } dd { "of " (nodes["data"].as_array().map_or(0, Vec::len)) " registered" } }
            div { dt { "Models" } dd { (models["data"].as_array().map_or(0, Vec::len)) } dd { "on the price list" } }
            div { dt { "Lane" } dd { (room.desk.lane()) } dd { "credit does not refresh" } }
            div { dt { "Fallback" } dd { "none" } dd { "only operators' nodes answer" } }
        }
        (models_sheet(&models, &nodes))
        (nodes_sheet(&nodes))
        (promises_sheet(chain.as_ref(), room.desk.proves()))
    };
    let page = Page {
        title: "Network",
        here: Here::Network,
        viewer: viewer.as_ref(),
        class: "",
        scripts: &[],
        body,
    };
    Ok(page.into_response())
}

fn models_sheet(models: &Value, nodes: &Value) -> Markup {
    html! {
        section.sheet aria-labelledby="models" {
            h2 #models { "Models and rates" }
            (scroll("Models and rates", html! {
                table {
                    thead { tr {
                        th scope="col" { "Model" } th.n scope="col" { "Per million tokens" } th.n scope="col" { "Context" }
                        th.lo scope="col" { "Receipts" } th.lo.n scope="col" { "To the operator" } th scope="col" { "Now" }
                    } }
                    tbody {
                        @for model in models["data"].as_array().into_iter().flatten() {
                            @let id = model["id"].as_str().unwrap_or_default();
                            @let terms = &model["counterfoil"];
                            @let free = free_nodes(nodes, id);
                            tr {
                                th scope="row" { (id) }
                                td.n { (per_million(terms)) " " (terms["price"]["asset"].as_str().unwrap_or("")) }
                                td.n { (count(terms["context_tokens"].as_u64().unwrap_or(0))) }
                                td.lo { @if terms["proof_class"] == "re_executable" { "can be run again" } @else { "attested" } }
                                td.lo.n { (terms["operator_share_ppm"].as_u64().unwrap_or(0) / 10_000) " %" }
                                td { @match free { 0 => (state(Shape::Off, "no node free")), 1 => (state(Shape::Ok, "1 node free")), n => (state(Shape::Ok, &format!("{n} nodes free"))) } }
                            }
                        }
                    }
                }
            }))
        }
    }
}

fn nodes_sheet(nodes: &Value) -> Markup {
    html! {
        section.sheet aria-labelledby="who" {
            div.row { h2 #who { "Who answers" } a href="/nodes" { "Run a node" } }
            (scroll("Nodes", html! {
                table {
                    thead { tr { th scope="col" { "Node" } th scope="col" { "Models" } th.n scope="col" { "Jobs now" } th scope="col" { "State" } } }
                    tbody {
                        @for node in nodes["data"].as_array().into_iter().flatten() {
                            tr {
                                th scope="row" { code { (short(node["node"].as_str().unwrap_or_default())) } }
                                td { (model_names(node)) }
                                td.n { (node["inflight"].as_u64().unwrap_or(0)) " of " (node["slots"].as_u64().unwrap_or(0)) }
                                td { (node_state(node)) }
                            }
                        }
                    }
                }
            }))
        }
    }
}

/// The models of a node, in a line.
pub(crate) fn model_names(node: &Value) -> String {
    let names: Vec<&str> =
        node["models"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    names.join(", ")
}

/// One state and, if it is not routed, the one reason: that of the model nearest to being routed.
pub(crate) fn node_state(node: &Value) -> Markup {
    let reasons = node["why"].as_object().into_iter().flatten();
    let codes: Vec<&str> = reasons.filter_map(|(_, code)| code.as_str()).collect();
    let code =
        codes.iter().find(|code| **code == "eligible").or(codes.first()).copied().unwrap_or("not_registered");
    let (shape, words) = reason_words(code);
    state(shape, words)
}

fn promises_sheet(chain: Option<&Value>, proves: bool) -> Markup {
    html! {
        section.sheet aria-labelledby="sure" {
            h2 #sure { "What can be checked" }
            ul {
                li { "Every charge carries a receipt that the node signed; the page checks it in your browser." }
                @if proves { li { "Every charge is an entry of a log whose tree heads are signed: " a href="/tlog/checkpoint" { "newest" } "." } }
                @if chain.is_some() { li { "Deposits lie in a contract. Your wallet alone gets them out, also when all of this is gone: " a href="/money#leave" { "how" } "." } }
                li { "The node that answers sees your question." }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_says_one_reason_and_prefers_that_it_is_routed() {
        let node = json!({"why": {"a": "full", "b": "eligible"}});
        assert!(node_state(&node).into_string().contains("st ok"), "one model that is routed is enough");
        let node = json!({"why": {"a": "heartbeat_missed"}});
        let shown = node_state(&node).into_string();
        assert!(shown.contains("heartbeat") && shown.contains("st fail"), "{shown}");
    }
}
