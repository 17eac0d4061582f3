//! For operators: their nodes with the one reason why they are or are not routed, what they earned, and how to bring
//! another: a form, then a file and a line to start with.

use crate::Room;
use crate::error::PageError;
use crate::figures::{exact, short};
use crate::layout::{Here, Page, State as Shape, scroll, state};
use crate::network::{model_names, node_state};
use crate::viewer::{self, Viewer, accepted};
use axum::Form;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use dispatcher::Call;
use ledger::query::{self, Earnings, OperatorView};
use maud::{Markup, html};
use protocol::amount::Amount;
use protocol::asset::Asset;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// The routes for operators.
pub(crate) fn routes() -> Router<Arc<Room>> {
    Router::new().route("/nodes", get(show)).route("/nodes/register", post(register))
}

/// The one reason, for a person: what it is and what makes it pass.
pub(crate) fn reason_words(code: &str) -> (Shape, &'static str) {
    match code {
        "eligible" => (Shape::Ok, "Routed: it gets the next job that is its turn"),
        "not_registered" => (Shape::Off, "Not registered here"),
        "never_seen" => (Shape::Off, "Never seen: its worker has not reported yet"),
        "heartbeat_missed" => (Shape::Fail, "Away: three heartbeats in a row are missing"),
        "draining" => (Shape::Off, "Leaving: it finishes what it has"),
        "model_not_registered" => (Shape::Off, "Not registered for this model"),
        "model_not_loaded" => (Shape::Wait, "Model not loaded: its heartbeat does not list it"),
        "parked" => (Shape::Fail, "Parked: three failures in a minute; it gets a probe in 15 s"),
        "probing" => (Shape::Wait, "Probing: one job is out; if it ends well it is routed again"),
        "full" => (Shape::Wait, "Busy: all its slots are taken"),
        _ => (Shape::Off, "Not routed"),
    }
}

/// What an operator has here.
struct Operated {
    operators: Vec<(OperatorView, Vec<Earnings>)>,
    assets: Vec<Asset>,
}

async fn operated(room: &Room, viewer: &Viewer) -> Result<Operated, PageError> {
    let account = viewer.account;
    let read = room.desk.ledger().read(move |state| {
        let own = query::operators(state).into_iter().filter(|operator| operator.account == account);
        let operators = own
            .map(|own| {
                let earned = query::earnings(state, own.operator);
                (own, earned)
            })
            .collect();
        Operated { operators, assets: query::assets(state).to_vec() }
    });
    Ok(read.await?)
}

/// `GET /nodes`
async fn show(State(room): State<Arc<Room>>, headers: HeaderMap) -> Result<Response, PageError> {
    let viewer = Viewer::of(&room, &headers).await;
    let all = accepted(
        room.desk.call(Call { method: Method::GET, path: "/v1/nodes", bearer: None, body: None }).await,
    )?;
    let models = accepted(
        room.desk.call(Call { method: Method::GET, path: "/v1/models", bearer: None, body: None }).await,
    )?;
    let own = match &viewer {
        Some(viewer) => Some(operated(&room, viewer).await?),
        None => None,
    };
    let body = html! {
        h1 { "Nodes" }
        @if let Some(own) = &own {
            @for (operator, earned) in &own.operators { (operator_sheet(operator, earned, &own.assets, &all)) }
        }
        div.two.wide {
            (register_sheet(viewer.is_some(), &models))
            (how_sheet())
        }
    };
    let page = Page {
        title: "Nodes",
        here: Here::Nodes,
        viewer: viewer.as_ref(),
        class: "",
        scripts: &["nodes.js"],
        body,
    };
    Ok(page.into_response())
}

fn operator_sheet(operator: &OperatorView, earned: &[Earnings], assets: &[Asset], all: &Value) -> Markup {
    let name = operator.operator.to_string();
    let nodes = all["data"].as_array().into_iter().flatten().filter(|node| node["operator"] == name.as_str());
    html! {
        section.sheet aria-label={ "Operator " (short(&name)) } {
            h2 { "Operator " code { (short(&name)) } }
            @for line in earned { (earnings(line, assets)) }
            (scroll("Your nodes", html! {
                table {
                    thead { tr { th scope="col" { "Node" } th scope="col" { "Models" } th.n scope="col" { "Jobs now" } th scope="col" { "State" } } }
                    tbody {
                        @for node in nodes {
                            @let id = node["node"].as_str().unwrap_or_default();
                            tr {
                                th scope="row" { a href={ "/books/about/" (id) } { code { (short(id)) } } }
                                td { (model_names(node)) }
                                td.n { (node["inflight"].as_u64().unwrap_or(0)) " of " (node["slots"].as_u64().unwrap_or(0)) }
                                td { (node_state(node)) }
                            }
                        }
                    }
                }
            }))
            p.s.q { "Paid out to " code { (operator.payout_address) } }
        }
    }
}

fn earnings(line: &Earnings, assets: &[Asset]) -> Markup {
    let asset = assets.get(line.asset.0 as usize);
    let (scale, symbol) = asset.map_or((0, ""), |asset| (asset.ledger_scale, asset.symbol.as_str()));
    let figure = |amount: Amount| exact(&amount.to_decimal_string(scale));
    html! {
        dl.facts aria-label={ "Earnings in " (symbol) } {
            div { dt { "Earned, not in a batch" } dd { (figure(line.accrued)) } dd { (symbol) } }
            div { dt { "Of that, by given credit" } dd { (figure(line.unbacked)) } dd { "spendable here, not paid on the chain" } }
            div { dt { "In a batch" } dd { (figure(line.settling)) } dd { "not final yet" } }
            div { dt { "To claim" } dd { (figure(line.payable)) } dd { (figure(line.claimed)) " claimed before" } }
        }
    }
}

fn register_sheet(signed_in: bool, models: &Value) -> Markup {
    html! {
        section.sheet aria-labelledby="register" {
            h2 #register { "Bring a node" }
            @if !signed_in {
                p { "An account earns what its nodes earn. " a href="/" { "Start one" } " or " a href="/sign-in" { "sign in" } "." }
            } @else {
                form #bring method="post" action="/nodes/register" {
                    label for="model" { "Model"
                        select #model name="model" {
                            @for model in models["data"].as_array().into_iter().flatten() { option { (model["id"].as_str().unwrap_or("")) } }
                        }
                    }
                    label for="slots" { "Jobs at once" input #slots.n name="slots" inputmode="numeric" value="4" required; }
                    label for="payout" { "Paid out to" small { "An address on the chain: 0x and 40 digits." } input #payout.m name="payout" placeholder="0x…" required spellcheck="false"; }
                    label for="operator" { "Operator's public key" small { "Begins with U. Your seed never leaves your machine." } input #operator.m name="operator" required spellcheck="false"; }
                    label for="sealing" { "Node's public key" small { "64 digits: questions are sealed to it." } input #sealing.m name="sealing" required spellcheck="false"; }
                    div.row.left {
                        button.btn { "Register" }
                        button.btn.p #make type="button" hidden { "Make both keys in this browser" }
                    }
                    p #made role="status" {}
                }
            }
        }
    }
}

fn how_sheet() -> Markup {
    html! {
        section.sheet aria-labelledby="how" {
            h2 #how { "What happens then" }
            ol {
                li { "You get a file and one line to start the worker with." }
                li { "The worker connects out to the network; nothing has to reach your machine." }
                li { "After its first heartbeat this page says whether it is routed, and if not, the one reason." }
                li { "Every answer's earning is an entry you can open. Batches pay it out on the chain." }
            }
            p.s.q { (state(Shape::Off, "Given credit")) " earns credit, not tokens: nobody deposited it." }
        }
    }
}

/// The form.
#[derive(Deserialize)]
struct Register {
    model: String,
    slots: String,
    payout: String,
    operator: String,
    sealing: String,
}

/// `POST /nodes/register`: operator first, then its node, with the account's own rights.
async fn register(
    State(room): State<Arc<Room>>,
    headers: HeaderMap,
    Form(form): Form<Register>,
) -> Result<Response, PageError> {
    viewer::check_origin(&room, &headers)?;
    let viewer = Viewer::required(&room, &headers).await?;
    let slots: u32 = form
        .slots
        .trim()
        .parse()
        .map_err(|_| PageError::Invalid("Jobs at once must be a number from 1 on.".to_owned()))?;
    let operator = form.operator.trim();
    let body = json!({ "operator": operator, "payout_address": form.payout.trim() });
    let registered = accepted(viewer.ask(&room, Method::POST, "/v1/operators", Some(body)).await)?;
    let body = json!({ "operator": operator, "models": [form.model], "slots": slots, "sealing_key": form.sealing.trim() });
    let node = accepted(viewer.ask(&room, Method::POST, "/v1/nodes", Some(body)).await)?;
    let id = node["node"].as_str().unwrap_or_default();
    let body = html! {
        h1 { "Registered" }
        section.sheet aria-labelledby="start" {
            h2 #start { "Start the worker" }
            p { "Save the three files in one folder, with the operator's seed as " code { "operator.seed" } " and the node's key as " code { "worker-data/nodes/" (id) "/sealing.key" } "; both readable by you only." }
            h3 { "worker.toml" }
            pre tabindex="0" aria-label="worker.toml" { (worker_toml(&registered, id, &form.model, slots)) }
            h3 { "operator.jwt" }
            pre tabindex="0" aria-label="operator.jwt" { (registered["nats_jwt"].as_str().unwrap_or("")) }
            h3 { "Then" }
            pre tabindex="0" aria-label="Start line" { "counterfoil worker run --config worker.toml" }
            p { a.btn.p href="/nodes" { "See whether it is routed" } }
        }
    };
    let page =
        Page { title: "Registered", here: Here::Nodes, viewer: Some(&viewer), class: "", scripts: &[], body };
    Ok(page.into_response())
}

fn worker_toml(registered: &Value, node: &str, model: &str, slots: u32) -> String {
    let nats = registered["nats_url"].as_str().unwrap_or_default();
    format!(
        "nats_url = {nats:?}\noperator_seed_file = \"operator.seed\"\noperator_jwt_file = \"operator.jwt\"\n\n\
         [[nodes]]\nid = {node:?}\nslots = {slots}\n\n[[nodes.models]]\nname = {model:?}\nbackend = \"builtin\"\npath = \"model.gguf\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_of_the_router_has_words() {
        use dispatcher::router::Reason::*;
        let all = [
            Eligible,
            NotRegistered,
            NeverSeen,
            HeartbeatMissed,
            Draining,
            ModelNotRegistered,
            ModelNotLoaded,
            Parked,
            Probing,
            Full,
        ];
        for reason in all {
            assert_ne!(reason_words(reason.code()).1, "Not routed", "{}", reason.code());
        }
    }
}
