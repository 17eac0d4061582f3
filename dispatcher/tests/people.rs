//! People without a wallet, over HTTP: sign-up with a welcome out of a budget, back by the recovery code, the cookie of our
//! own pages, the session's end. And pages beside the API, which can do what their caller can.

mod network;

use axum::Router;
use axum::http::{HeaderMap, Method};
use axum::routing::get;
use dispatcher::{Call, Desk, Gateway, GatewayOptions, Welcome};
use journal::auth::{Role, connect};
use network::{Network, http};
use protocol::amount::Amount;
use serde_json::json;
use std::sync::Arc;

const WELCOME: i128 = 500_000;

/// The balance of whoever the cookie says, asked as a page asks.
fn page(desk: Desk) -> Router {
    let show = move |headers: HeaderMap| async move {
        let visitor = desk.visitor(&headers);
        let bearer = visitor.as_ref().map(|(_, session)| session.as_str());
        let call = Call { method: Method::GET, path: "/v1/balance", bearer, body: None };
        let answer = desk.call(call).await;
        (answer.status, answer.body.to_string())
    };
    Router::new().route("/page", get(show))
}

/// A gateway that welcomes two people.
async fn gateway(network: &Network) -> Gateway {
    let url = network.server.url();
    let nats = connect(&url, network.server.keys().credentials(Role::Gateway)).await.unwrap();
    let welcome = Welcome { amount: Amount(WELCOME), budget: Amount(2 * WELCOME + 1), life_s: 86_400 };
    let options =
        GatewayOptions { pages: Some(Arc::new(page)), welcome: Some(welcome), ..network.options(nats) };
    Gateway::start(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_signs_up_and_comes_back_by_the_code() {
    let network = Network::start().await;
    let gateway = gateway(&network).await;
    let address = gateway.local_addr();
    let signed_up = http::post(address, "/v1/people", None, &json!({})).await;
    assert_eq!(signed_up.status, 201, "{}", signed_up.text());
    let person = signed_up.json();
    assert_eq!(person["welcome"]["base_units"], WELCOME.to_string());
    let token = person["session_token"].as_str();
    let own = http::request(address, "GET", "/v1/balance", token, &[], b"").await.json();
    assert_eq!(own["balances"][0]["base_units"]["available"], WELCOME.to_string());

    let wrong = json!({ "recovery_code": "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA" });
    assert_eq!(http::post(address, "/v1/people/sessions", None, &wrong).await.status, 401);
    let code = json!({ "recovery_code": person["recovery_code"] });
    let signed_in = http::post(address, "/v1/people/sessions", None, &code).await;
    assert_eq!(signed_in.status, 201, "{}", signed_in.text());
    let session = signed_in.json()["session_token"].as_str().unwrap().to_owned();
    assert_eq!(signed_in.json()["account"], person["account"]);
    let balance =
        async || http::request(address, "GET", "/v1/balance", Some(&session), &[], b"").await.status;
    assert_eq!(balance().await, 200);
    let ended = http::request(address, "DELETE", "/v1/people/sessions", Some(&session), &[], b"").await;
    assert_eq!((ended.status, ended.json()["ended"].as_bool()), (200, Some(true)));
    assert_eq!(balance().await, 401, "an ended session opens nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_budget_ends_welcomes_and_not_sign_ups() {
    let network = Network::start().await;
    let gateway = gateway(&network).await;
    let mut welcomes = Vec::new();
    for _ in 0..3 {
        let signed_up = http::post(gateway.local_addr(), "/v1/people", None, &json!({})).await;
        assert_eq!(signed_up.status, 201, "{}", signed_up.text());
        welcomes.push(signed_up.json()["welcome"].is_null());
    }
    assert_eq!(welcomes, [false, false, true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_asks_with_its_visitor_s_rights() {
    let network = Network::start().await;
    let gateway = gateway(&network).await;
    let address = gateway.local_addr();
    let person = http::post(address, "/v1/people", None, &json!({})).await.json();
    let cookie = format!("counterfoil_session={}", person["session_token"].as_str().unwrap());
    let ask = async |path: &str, headers: &[(&str, &str)]| {
        http::request(address, "GET", path, None, headers, b"").await
    };
    let shown = ask("/page", &[("cookie", &cookie)]).await;
    assert_eq!(shown.status, 200, "{}", shown.text());
    assert_eq!(shown.json()["account"], person["account"]);
    assert_eq!(ask("/page", &[]).await.status, 401, "nobody has nobody's rights");
    assert_eq!(ask("/v1/balance", &[("cookie", &cookie)]).await.status, 200);
    let foreign = [("cookie", cookie.as_str()), ("origin", "https://else.where")];
    assert_eq!(ask("/v1/balance", &foreign).await.status, 403, "another site does not borrow the cookie");
    assert_eq!(ask("/nowhere", &[]).await.json()["error"]["code"], "unknown_url");
}
