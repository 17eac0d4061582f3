//! The stories of the presets: what happens to somebody on that network, from an account to audited books, each step told with
//! the event behind it. They use the doors that anybody has: HTTP, the chain, the commands; where the gateway has none yet, the
//! ledger's own client.

mod allotment;
mod circular;
pub mod customer;
pub mod events;
pub mod http;
mod money;
mod proof;

use crate::network::Network;
use crate::output::Output;
use anyhow::{Context, Result};
use customer::Customer;
use events::EventLog;
use http::Http;
use protocol::amount::Amount;
use protocol::event::hold::HoldPlaced;
use protocol::event::{Event, EventBody};
use protocol::rate::ModelRate;
use serde_json::{Value, json};

/// What the customer asks.
const PROMPT: &str = "Name the capital of France.";
/// Bound on the answer.
const PROMPT_TOKENS_MAX: u32 = 36;

/// Tells steps: a paragraph for people, an object for machines.
pub struct Teller<'a> {
    output: Option<&'a Output>,
}

impl<'a> Teller<'a> {
    /// To an output.
    pub fn new(output: &'a Output) -> Teller<'a> {
        Teller { output: Some(output) }
    }

    /// To nobody.
    pub fn silent() -> Teller<'static> {
        Teller { output: None }
    }

    /// One step; `figures` join the machine's form.
    pub fn step(&self, name: &str, text: &str, event: Option<&Event>, figures: Value) {
        let Some(output) = self.output else { return };
        let mut value = json!({"step": name, "text": text});
        let mut behind = String::new();
        if let Some(event) = event {
            let kind = event.body.kind();
            behind = format!("  [event {} {kind}]", event.header.leaf);
            value["leaf"] = event.header.leaf.into();
            value["event"] = kind.into();
        }
        if let (Some(value), Value::Object(figures)) = (value.as_object_mut(), figures) {
            value.extend(figures);
        }
        output.result(&format!("{text}{behind}\n"), &value);
    }

    /// A passing remark on stderr.
    pub fn note(&self, text: &str) {
        if self.output.is_some_and(|output| !output.is_json()) {
            eprintln!("  {text}");
        }
    }

    /// Text as it streams.
    pub fn piece(&self, text: &str) {
        if let Some(output) = self.output {
            output.piece(text);
        }
    }
}

/// Walks the network's story. Fails at the first step that does not hold.
pub async fn tell(network: &Network, output: &Output) -> Result<()> {
    let economy = network.preset.economy.as_ref();
    let has_allotment = economy.is_some_and(|economy| economy.allotment.is_some());
    let has_sign_up = economy.is_some_and(|economy| economy.sign_up.is_some());
    if !has_allotment && !has_sign_up {
        return prepaid(network, output).await;
    }
    let tell = Teller::new(output);
    let events = EventLog::follow(&network.journal);
    if has_allotment {
        allotment::walk(network, &events, &tell).await?;
    }
    if has_sign_up {
        circular::walk(network, &events, &tell).await?;
    }
    proof::export(network, &tell).await?;
    proof::audit(network, &tell).await
}

/// The prepaid network's: deposit, paid prompt, settlement, withdrawal, audit.
async fn prepaid(network: &Network, output: &Output) -> Result<()> {
    let tell = Teller::new(output);
    let events = EventLog::follow(&network.journal);
    let customer = Customer::arrive(network, &events, &tell).await?;
    let hold = ask(network, &customer, &events, &tell).await?;
    capture(network, &customer, &hold, &events, &tell).await?;
    money::settle_and_claim(network, &events, &tell).await?;
    money::withdraw(network, &customer, &events, &tell).await?;
    proof::export(network, &tell).await?;
    proof::audit(network, &tell).await
}

async fn ask(
    network: &Network,
    customer: &Customer,
    events: &EventLog,
    tell: &Teller<'_>,
) -> Result<HoldPlaced> {
    let http = Http::new(&network.gateway_url).with_key(&customer.api_key);
    let body = json!({"model": network.first_model().await?, "stream": true, "temperature": 0,
        "max_tokens": PROMPT_TOKENS_MAX, "messages": [{"role": "user", "content": PROMPT}]});
    tell.piece(&format!("> {PROMPT}\n"));
    let mut stream = http.stream("/v1/chat/completions", body).await?;
    let (mut answer, mut ended) = (String::new(), false);
    while let Some(data) = stream.recv().await {
        if data == "[DONE]" {
            ended = true;
            break;
        }
        let chunk: Value = serde_json::from_str(&data)?;
        if let Some(error) = chunk.get("error") {
            anyhow::bail!("the answer broke off: {error}");
        }
        let text = chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
        tell.piece(text);
        answer.push_str(text);
    }
    anyhow::ensure!(ended && !answer.is_empty(), "the stream ended without [DONE]");
    tell.piece("\n");
    let account = customer.account;
    let pick = |body: &EventBody| match body {
        EventBody::HoldPlaced(e) if e.account == account => Some(e.clone()),
        _ => None,
    };
    let (event, hold) = events.find("hold", pick).await?;
    let held = hold.amount.to_decimal_string(network.asset_scale().await?);
    let text = format!(
        "Before the prompt went to a node, its worst case was held: {held} {} for {} prompt tokens and at most {} more. \
         Then {} ran it and the tokens streamed back.",
        network.price_symbol(),
        hold.input_units,
        hold.output_units_max,
        hold.model
    );
    tell.step("prompt", &text, Some(&event), json!({"job": hold.job, "held": held, "answer": answer}));
    Ok(hold)
}

async fn capture(
    network: &Network,
    customer: &Customer,
    hold: &HoldPlaced,
    events: &EventLog,
    tell: &Teller<'_>,
) -> Result<()> {
    let pick = |body: &EventBody| match body {
        EventBody::UsageCaptured(e) if e.job == hold.job => Some(e.clone()),
        _ => None,
    };
    let (event, charge) = events.find("capture", pick).await?;
    let http = Http::new(&network.gateway_url).with_key(&customer.api_key);
    let receipt = http.get(&format!("/v1/receipts/{}", hold.job)).await?;
    let bytes = receipt["signed_receipt"].as_str().context("no receipt in the answer")?;
    let bytes = data_encoding::BASE64.decode(bytes.as_bytes())?;
    let opened = protocol::receipt::SignedReceipt::open(&bytes)?;
    anyhow::ensure!(opened.chain_head == charge.chain_head, "receipt and charge disagree on the digest");
    let scale = network.asset_scale().await?;
    let rate = rate_of(network, hold).await?;
    let decimal = |amount: Amount| amount.to_decimal_string(scale);
    let units = charge.input_units + charge.output_units;
    let text = format!(
        "The node's receipt verified (Ed25519 by operator {}). Charged: {} x {units} tokens = {} {}; {} to the operator, {} \
         to the platform. The rest of the hold came back.",
        charge.operator,
        decimal(rate.price),
        decimal(charge.cost),
        network.price_symbol(),
        decimal(charge.operator_share),
        decimal(charge.platform_share)
    );
    let figures = json!({"cost": decimal(charge.cost), "tokens": units, "rate": decimal(rate.price),
        "operator_share": decimal(charge.operator_share), "platform_share": decimal(charge.platform_share),
        "receipt": charge.receipt, "digest": charge.chain_head});
    tell.step("capture", &text, Some(&event), figures);
    Ok(())
}

async fn rate_of(network: &Network, hold: &HoldPlaced) -> Result<ModelRate> {
    let (version, model) = (hold.rate_card_version, hold.model.clone());
    let rate = network
        .client
        .read(move |state| ledger::query::rate_card_by_version(state, version)?.card.model(&model).cloned());
    rate.await?.context("the hold's rate card is in the state")
}
