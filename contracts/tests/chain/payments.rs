//! x402: the unmodified npm clients pay a server of ours, and what they signed is in the vault.

use std::path::PathBuf;
use std::sync::Arc;

use alloy::sol_types::SolCall;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use contracts::bindings::dollar::DollarToken;
use contracts::x402::{
    Cashier, PAYMENT_REQUIRED_HEADER, PAYMENT_RESPONSE_HEADER, PAYMENT_SIGNATURE_HEADER, PaymentPayload,
    PaymentRequired, PaymentRequirements, Resource, TokenDomain,
};
use contracts::{
    Address20, ChainError, DeployOptions, Deployment, EconomyOptions, EvmKey, Exit, deploy, deploy_economy,
    dev,
};
use serde_json::Value;

use crate::world::{World, deploy_options, repository_root};

const PRICE_UNITS: u64 = 20_000;

/// A vault on the development dollar, beside the world's own.
async fn dollar_vault(world: &World) -> Deployment {
    let options = EconomyOptions {
        deployer: world.deployer.clone(),
        dollar: None,
        settler: world.settler.address(),
        publisher: world.guardian.address(),
        minimum_stake_base_units: 1,
        unbond_delay_s: 60,
        voting_delay_s: 60,
        voting_period_s: 60,
        quorum_percent: 20,
        floor_units: 1,
        ceiling_units: 2,
    };
    let manifest =
        deploy_economy(&world.chain, world.deployment.manifest(), &options).await.expect("deployed");
    let economy = Deployment::open(world.chain.clone(), manifest).await.expect("verified");
    let dollar = economy.manifest().economy.expect("it has one").dollar.address;
    let minted = economy.economy().expect("it has one");
    minted.mint_dollars(&world.deployer, world.user.address(), 1_000_000).await.expect("minted");
    let vault = deploy(&world.chain, &DeployOptions { token: Some(dollar), ..deploy_options() }).await;
    Deployment::open(world.chain.clone(), vault.expect("deployed")).await.expect("verified")
}

fn domain() -> TokenDomain {
    TokenDomain { name: "Counterfoil Development Dollar".to_string(), version: "1".to_string() }
}

struct Shop {
    cashier: Cashier,
    requirements: PaymentRequirements,
    deployment: Deployment,
    key: EvmKey,
}

impl Shop {
    fn ask(&self, error: Option<String>) -> (StatusCode, HeaderMap, String) {
        let resource = Resource {
            url: "http://localhost/answer".to_string(),
            description: "one answer".to_string(),
            mime_type: "text/plain".to_string(),
        };
        let offer = PaymentRequired::new(resource, self.requirements.clone(), error);
        let mut headers = HeaderMap::new();
        headers.insert(PAYMENT_REQUIRED_HEADER, offer.to_header().parse().expect("base64"));
        (StatusCode::PAYMENT_REQUIRED, headers, String::new())
    }

    async fn take(&self, header: &str) -> Result<HeaderMap, ChainError> {
        let payload = PaymentPayload::from_header(header)?;
        let now_s = self.deployment.chain().head().await?.timestamp;
        let payment = self.cashier.verify(&payload, &self.requirements, now_s)?;
        self.cashier.check(&payment).await?;
        let mined = self.cashier.deposit(&self.key, &payment).await?;
        let mut headers = HeaderMap::new();
        let told = self.cashier.settled(&payment, &mined).to_header();
        headers.insert(PAYMENT_RESPONSE_HEADER, told.parse().expect("base64"));
        Ok(headers)
    }
}

async fn answer(State(shop): State<Arc<Shop>>, headers: HeaderMap) -> (StatusCode, HeaderMap, String) {
    let Some(header) = headers.get(PAYMENT_SIGNATURE_HEADER) else { return shop.ask(None) };
    match shop.take(header.to_str().unwrap_or_default()).await {
        Ok(told) => (StatusCode::OK, told, "forty-two".to_string()),
        Err(error) => shop.ask(Some(error.to_string())),
    }
}

async fn open_shop(world: &World) -> (String, Arc<Shop>) {
    let deployment = dollar_vault(world).await;
    let cashier = Cashier::open(deployment.clone(), domain()).await.expect("the token's own domain");
    let requirements = cashier.requirements(PRICE_UNITS, 300);
    let shop = Arc::new(Shop { cashier, requirements, deployment, key: world.operator.clone() });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/answer", listener.local_addr().expect("bound"));
    let router = Router::new().route("/answer", get(answer)).with_state(shop.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, shop)
}

/// Where the pinned npm clients lie.
fn modules() -> PathBuf {
    let named = std::env::var_os("COUNTERFOIL_X402_MODULES").map(PathBuf::from);
    let place = named.unwrap_or_else(|| repository_root().join(".tools/x402/node_modules"));
    let client = place.join("@x402/fetch");
    assert!(client.is_dir(), "{} is missing: run cargo xtask test, which installs it", client.display());
    place
}

/// Runs the npm client once: status, body, and what the server told it of the payment.
async fn pay(url: &str, key: &EvmKey) -> Value {
    let script = repository_root().join("contracts/tests/x402/client.cjs");
    let secret: String = key.secret_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut command = tokio::process::Command::new("node");
    command.arg(script).arg(url).env("NODE_PATH", modules()).env("WALLET_KEY", format!("0x{secret}"));
    let output = command.output().await.expect("node runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test]
async fn an_unmodified_client_pays_and_the_change_stays_its_own() {
    let world = World::new(0).await;
    let (url, shop) = open_shop(&world).await;
    let payer = world.user.address();
    for round in 1..=2u64 {
        let answer = pay(&url, &world.user).await;
        assert_eq!(
            (answer["status"].as_u64(), answer["body"].as_str()),
            (Some(200), Some("forty-two")),
            "{answer}"
        );
        assert_eq!(answer["payment"]["success"], true, "{answer}");
        assert_eq!(answer["payment"]["payer"].as_str(), Some(&payer.to_string()[..]));
        let account = shop.deployment.account(payer).await.expect("account");
        assert_eq!((account.balance, account.cap), (PRICE_UNITS * round, PRICE_UNITS * round));
    }
    let poor = pay(&url, &world.guardian).await;
    assert_eq!(poor["status"], 402, "{poor}");
    assert!(poor["error"].as_str().expect("a reason").contains("insufficient_funds"), "{poor}");
    let exit = Exit::open(world.chain.clone(), shop.deployment.manifest().vault).await.expect("a vault");
    exit.request(&world.user).await.expect("what is left can leave");
    let leaving = pay(&url, &world.user).await;
    assert!(leaving["error"].as_str().expect("a reason").contains("exit_pending"), "{leaving}");
}

/// A payment signed here, as the client signs it.
async fn signed(world: &World, shop: &Shop, change: impl FnOnce(&mut Value)) -> String {
    let output = tokio::process::Command::new("node")
        .arg(repository_root().join("contracts/tests/x402/client.cjs"))
        .arg("--payload")
        .arg(serde_json::to_string(&shop.requirements).expect("json"))
        .env("NODE_PATH", modules())
        .env("WALLET_KEY", format!("0x{}", alloy::hex::encode(world.user.secret_bytes())))
        .output();
    let output = output.await.expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut payload: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    change(&mut payload);
    let payload: PaymentPayload = serde_json::from_value(payload).expect("a payment");
    payload.to_header()
}

#[tokio::test]
async fn a_payment_that_somebody_handed_straight_to_the_token_is_found_and_credited_once() {
    let world = World::new(0).await;
    let (_, shop) = open_shop(&world).await;
    let header = signed(&world, &shop, |_| {}).await;
    let payload = PaymentPayload::from_header(&header).expect("a payment");
    let (authorization, payer) = (&payload.payload.authorization, world.user.address());
    let figure = |text: &str| alloy::primitives::U256::from_str_radix(text, 10).expect("a figure");
    let signature = alloy::hex::decode(&payload.payload.signature).expect("hex");
    let straight = DollarToken::transferWithAuthorizationCall {
        from: payer.into(),
        to: authorization.to.into(),
        value: figure(&authorization.value),
        validAfter: figure(&authorization.valid_after),
        validBefore: figure(&authorization.valid_before),
        nonce: authorization.nonce.into(),
        v: signature[64],
        r: alloy::primitives::B256::from_slice(&signature[..32]),
        s: alloy::primitives::B256::from_slice(&signature[32..64]),
    };
    let deployment = &shop.deployment;
    assert_eq!(
        deployment.find_stray(payer, authorization.nonce, 0).await.expect("asked"),
        None,
        "nothing moved"
    );
    let token = deployment.manifest().token;
    let sent = dev::send_as(&world.chain, world.guardian.address(), token, &straight.abi_encode()).await;
    sent.expect("anybody may");
    world.mine(1).await;
    let error = shop.take(&header).await.expect_err("used past the vault");
    assert!(error.to_string().contains("nonce_already_used"), "{error}");
    assert_eq!(deployment.account(payer).await.expect("account").balance, 0, "the vault knows nothing of it");

    let stray = deployment.find_stray(payer, authorization.nonce, 0).await.expect("asked").expect("found");
    assert_eq!((stray.payer, stray.units), (payer, PRICE_UNITS));
    let other = deployment.find_stray(world.guardian.address(), authorization.nonce, 0).await;
    assert_eq!(other.expect("asked"), None, "nobody else's");
    deployment.attribute(&world.guardian, &stray).await.expect_err("the settler's alone");
    deployment.attribute(&world.settler, &stray).await.expect("credited");
    assert_eq!(deployment.account(payer).await.expect("account").balance, PRICE_UNITS);
    deployment.attribute(&world.settler, &stray).await.expect_err("once");

    let deposited = signed(&world, &shop, |_| {}).await;
    shop.take(&deposited).await.expect("by the vault");
    let nonce = PaymentPayload::from_header(&deposited).expect("a payment").payload.authorization.nonce;
    assert_eq!(deployment.find_stray(payer, nonce, 0).await.expect("asked"), None, "a deposit is no stray");
}

#[tokio::test]
async fn a_payment_that_was_changed_or_used_is_refused_with_its_reason() {
    let world = World::new(0).await;
    let (_, shop) = open_shop(&world).await;
    let refused = async |change: fn(&mut Value), reason: &str| {
        let header = signed(&world, &shop, change).await;
        let error = shop.take(&header).await.expect_err(reason);
        assert!(error.to_string().contains(reason), "expected {reason}, got {error}");
    };
    let elsewhere = Address20([9; 20]).to_string();
    assert_eq!(elsewhere.len(), 42);
    refused(|p| p["x402Version"] = 1.into(), "invalid_x402_version").await;
    refused(|p| p["accepted"]["network"] = "eip155:1".into(), "invalid_network").await;
    refused(|p| p["accepted"]["amount"] = "1".into(), "invalid_payment_requirements").await;
    refused(|p| p["payload"]["authorization"]["value"] = "1".into(), "authorization_value").await;
    let other: fn(&mut Value) =
        |p| p["payload"]["authorization"]["to"] = Address20([9; 20]).to_string().into();
    refused(other, "recipient_mismatch").await;
    refused(|p| p["payload"]["authorization"]["validBefore"] = "5".into(), "valid_before").await;
    refused(|p| p["payload"]["authorization"]["validAfter"] = "99999999999".into(), "valid_after").await;
    let nonce: fn(&mut Value) =
        |p| p["payload"]["authorization"]["nonce"] = format!("0x{}", "11".repeat(32)).into();
    refused(nonce, "payload_signature").await;
    refused(|p| p["payload"]["signature"] = "0x1234".into(), "payload_signature").await;

    let header = signed(&world, &shop, |_| {}).await;
    shop.take(&header).await.expect("good once");
    let again = shop.take(&header).await.expect_err("used");
    assert!(again.to_string().contains("nonce_already_used"), "{again}");
    let balance = shop.deployment.account(world.user.address()).await.expect("account").balance;
    assert_eq!(balance, PRICE_UNITS, "the money moved once");
    let wrong = TokenDomain { name: "USD Coin".to_string(), version: "2".to_string() };
    let error = Cashier::open(shop.deployment.clone(), wrong).await.expect_err("not the token's");
    assert_eq!(error.code(), "chain_wrong_wiring", "{error}");
}
