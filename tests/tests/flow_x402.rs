//! A wallet without an account, and the unmodified npm clients: it pays for one prompt by a signature, the prompt is served,
//! the change stays its own and comes out by voucher. `COUNTERFOIL_X402_MODULES` names where the clients lie.

use data_encoding::BASE64;
use network_tests::network::{Network, NetworkOptions, chat_body, root};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;

/// Account 9 of the phrase that every development chain starts with: nobody here has seen it.
const WALLET_KEY: &str = "2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6";
const WALLET: &str = "0xa0ee7a142d267c1f36714e4a8f75612f20a79720";
const DEPLOYER: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
/// A vault unit in the token's base units.
const UNIT: u128 = 1_000_000_000_000;

fn modules() -> PathBuf {
    let named = std::env::var_os("COUNTERFOIL_X402_MODULES").map(PathBuf::from);
    let place = named.unwrap_or_else(|| root().join(".tools/x402/node_modules"));
    assert!(place.is_dir(), "{} is missing: run cargo xtask test, which installs it", place.display());
    place
}

fn rpc(network: &Network, method: &str, params: Value) -> Value {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let mut answer = ureq::post(&network.ready.chain_rpc).send_json(body).expect("the chain answers");
    let answer: Value = answer.body_mut().read_json().expect("JSON");
    assert!(answer["error"].is_null(), "{method}: {answer}");
    answer["result"].clone()
}

/// Sends a call from one of the chain's own accounts and waits for its receipt.
fn send(network: &Network, from: &str, to: &str, data: &str) {
    let tx = rpc(network, "eth_sendTransaction", json!([{ "from": from, "to": to, "data": data }]));
    for _ in 0..400 {
        let receipt = rpc(network, "eth_getTransactionReceipt", json!([tx]));
        if !receipt.is_null() {
            assert_eq!(receipt["status"], "0x1", "{receipt}");
            return;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(25));
    }
    panic!("{tx} is not mined")
}

fn word(address: &str) -> String {
    format!("{:0>64}", address.trim_start_matches("0x"))
}

fn token_balance(network: &Network, token: &str, holder: &str) -> u128 {
    let data = format!("0x70a08231{}", word(holder));
    let held = rpc(network, "eth_call", json!([{ "to": token, "data": data }, "latest"]));
    u128::from_str_radix(held.as_str().expect("hex").trim_start_matches("0x"), 16).expect("hex")
}

/// Runs the npm client with a body; what it printed.
fn pay(network: &Network, body: &Value) -> Value {
    let mut command = Command::new("node");
    command.arg(root().join("contracts/tests/x402/client.cjs"));
    command.arg(format!("{}/v1/chat/completions", network.ready.gateway)).arg(body.to_string());
    command.env("NODE_PATH", modules()).env("WALLET_KEY", format!("0x{WALLET_KEY}"));
    let output = command.output().expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A request without any credentials: status, headers that x402 knows, body.
fn plain(
    network: &Network,
    body: &Value,
    payment: Option<&str>,
) -> (u16, Option<Value>, Option<Value>, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut request = agent.post(format!("{}/v1/chat/completions", network.ready.gateway));
    if let Some(payment) = payment {
        request = request.header("payment-signature", payment);
    }
    let mut answer = request.send_json(body).expect("the gateway answers");
    let header = |name: &str| {
        let text = answer.headers().get(name)?.to_str().expect("text").to_owned();
        Some(serde_json::from_slice(&BASE64.decode(text.as_bytes()).expect("base64")).expect("JSON"))
    };
    let (required, response) = (header("payment-required"), header("payment-response"));
    (answer.status().as_u16(), required, response, answer.body_mut().read_json().expect("JSON"))
}

/// A call of nobody in particular.
fn anonymous(network: &Network, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request =
        ureq::http::Request::builder().method(method).uri(format!("{}{path}", network.ready.gateway));
    let request = request.header("content-type", "application/json");
    let request = request.body(body.map(|body| body.to_string()).unwrap_or_default()).expect("well-formed");
    let mut answer = agent.run(request).expect("the gateway answers");
    (answer.status().as_u16(), answer.body_mut().read_json().expect("JSON"))
}

/// Signs an offer with the npm client's scheme, without sending it.
fn signed(offer: &Value) -> String {
    let mut command = Command::new("node");
    command.arg(root().join("contracts/tests/x402/client.cjs")).arg("--payload").arg(offer.to_string());
    command.env("NODE_PATH", modules()).env("WALLET_KEY", format!("0x{WALLET_KEY}"));
    let output = command.output().expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    BASE64.encode(output.stdout.trim_ascii())
}

/// Signs in with the wallet alone; a bearer text.
fn sign_in(network: &Network) -> String {
    let (_, nonce) = anonymous(network, "POST", "/v1/sessions/nonce", Some(json!({})));
    let nonce = nonce["nonce"].as_str().expect("a nonce");
    let page = format!("/v1/authorisations/typed-data?nonce={nonce}&wallet={WALLET}&limit=50");
    let (status, asked) = anonymous(network, "GET", &page, None);
    assert_eq!(status, 200, "{asked}");
    let signature = rpc(network, "eth_signTypedData_v4", json!([WALLET, asked["typed_data"]]));
    let body = json!({ "nonce": nonce, "wallet": WALLET, "signature": signature,
        "max_cumulative_units": asked["max_cumulative_units"], "valid_until_s": asked["valid_until_s"],
        "chain_nonce": asked["chain_nonce"] });
    let (status, session) = anonymous(network, "POST", "/v1/authorisations", Some(body));
    assert_eq!(status, 201, "{session}");
    session["session_token"].as_str().expect("a token").to_owned()
}

#[test]
fn a_wallet_without_an_account_pays_for_one_prompt_and_keeps_the_change() {
    let dir = tempfile::tempdir().expect("a directory");
    let network = Network::up(NetworkOptions { data: &dir.path().join("data"), story: false });
    let (_, chain) = anonymous(&network, "GET", "/v1/chain", None);
    let contract = |name: &str| chain["contracts"][name].as_str().expect("an address").to_owned();
    let (token, vault) = (contract("token"), contract("vault"));
    let five = format!("{:064x}", 5_000_000 * UNIT);
    send(&network, DEPLOYER, &token, &format!("0x40c10f19{}{five}", word(WALLET)));

    let prompt = chat_body("Say hello.", 24, false);
    let (status, offer, _, body) = plain(&network, &prompt, None);
    assert_eq!((status, body["error"]["code"].as_str()), (402, Some("payment_required")), "{body}");
    let offer = offer.expect("PAYMENT-REQUIRED");
    assert_eq!(
        (offer["x402Version"].as_u64(), offer["accepts"][0]["scheme"].as_str()),
        (Some(2), Some("exact"))
    );
    assert_eq!(offer["accepts"][0]["payTo"].as_str().map(str::to_lowercase), Some(vault.to_lowercase()));
    let price: u128 = offer["accepts"][0]["amount"].as_str().expect("text").parse().expect("a figure");

    let answer = pay(&network, &prompt);
    assert_eq!(answer["status"], 200, "{answer}");
    assert_eq!(answer["payment"]["success"], true, "{answer}");
    assert_eq!(answer["payment"]["payer"].as_str().map(str::to_lowercase), Some(WALLET.to_owned()));
    let served: Value = serde_json::from_str(answer["body"].as_str().expect("text")).expect("JSON");
    assert!(!served["choices"][0]["message"]["content"].as_str().expect("text").is_empty(), "{served}");
    assert_eq!(token_balance(&network, &token, WALLET), 5_000_000 * UNIT - price, "one payment, that price");

    // The same payment again gives the same answer and takes nothing; for another request it is worthless.
    let payment = signed(&offer["accepts"][0]);
    let (status, _, paid, first) = plain(&network, &prompt, Some(&payment));
    assert_eq!((status, paid.is_some()), (200, true), "{first}");
    let (status, _, _, again) = plain(&network, &prompt, Some(&payment));
    assert_eq!(status, 200, "{again}");
    assert_eq!(again["choices"][0]["message"], first["choices"][0]["message"]);
    let (status, _, _, stolen) = plain(&network, &chat_body("Another one.", 24, false), Some(&payment));
    assert_eq!((status, stolen["error"]["code"].as_str()), (409, Some("idempotency_key_reused")), "{stolen}");
    assert_eq!(token_balance(&network, &token, WALLET), 5_000_000 * UNIT - 2 * price, "two payments in all");
    let mut cheaper = offer["accepts"][0].clone();
    cheaper["amount"] = UNIT.to_string().into();
    let (status, refused, _, _) = plain(&network, &prompt, Some(&signed(&cheaper)));
    assert_eq!((status, refused.expect("an offer")["error"].is_string()), (402, true), "too little");

    let session = sign_in(&network);
    let (_, balance) = network.call_as(&session, "GET", "/v1/balance", None);
    let left = balance["balances"][0]["total"].as_str().expect("a figure").to_owned();
    let (whole, part) = left.split_once('.').unwrap_or((&left, ""));
    let amount = format!("{whole}.{}", &format!("{part:0<6}")[..6]);
    let (status, voucher) =
        network.call_as(&session, "POST", "/v1/withdrawals", Some(json!({ "amount": amount })));
    assert_eq!(status, 201, "{voucher}");
    let before = token_balance(&network, &token, WALLET);
    send(&network, WALLET, &vault, voucher["calldata"].as_str().expect("calldata"));
    let units = u128::from(voucher["units"].as_u64().expect("units"));
    assert!(units > 0 && units * UNIT < 2 * price, "{voucher}");
    assert_eq!(token_balance(&network, &token, WALLET), before + units * UNIT, "the change came out");
}
