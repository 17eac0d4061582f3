//! What there is to say about a receipt, gathered from the API, the ledger and the log; sentences for people, bytes for the
//! browser's own check.

use super::own_job;
use crate::Room;
use crate::error::PageError;
use crate::figures::{count, exact, utc};
use crate::viewer::{Viewer, accepted};
use axum::http::Method;
use dispatcher::Call;
use ledger::query;
use protocol::id::JobId;
use serde::Serialize;
use serde_json::Value;

/// Said where nothing can be run again.
pub(super) const NO_RERUN: &str = "Running an answer again is not offered here: this gateway does not have the weights. An auditor does it with \
     `counterfoil audit sample`.";

/// A name and what stands beside it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Row {
    pub name: String,
    pub value: String,
}

fn row(name: &str, value: impl Into<String>) -> Row {
    Row { name: name.to_owned(), value: value.into() }
}

/// One thing that this server says about the receipt; the browser checks it again where it can.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Step {
    pub name: String,
    pub text: String,
    pub holds: bool,
}

/// Everything about one receipt.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Facts {
    pub job: JobId,
    pub number: String,
    pub cost: Option<String>,
    pub asset: String,
    pub sentences: Vec<String>,
    pub steps: Vec<Step>,
    pub shares: Vec<Row>,
    pub details: Vec<Row>,
    pub leaf: Option<u64>,
    /// Counts that the receipt's bytes must say.
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Base64 of the signed receipt.
    pub signed_receipt: String,
    /// The operator's key in its text form.
    pub operator: String,
    /// Base64 of the charge's entry; for the job's owner only.
    pub entry: Option<String>,
    /// A proof file (c2sp.org/tlog-proof).
    pub proof: Option<String>,
    /// Verifier key of the log, as this server names it.
    pub log_key: Option<String>,
    /// Whether the owner can have it run again here.
    pub can_rerun: bool,
    /// Why not, else what it takes.
    pub rerun: String,
}

/// The charge, as the owner's job says it.
struct Charge {
    input: u64,
    output: u64,
    cost: String,
    asset: String,
    operator_share: String,
    platform_share: String,
    price: Option<String>,
    card: u64,
}

impl Facts {
    pub async fn gather(room: &Room, viewer: Option<&Viewer>, job: JobId) -> Result<Facts, PageError> {
        let path = format!("/v1/receipts/{job}");
        let call = Call { method: Method::GET, path: &path, bearer: None, body: None };
        let stored = accepted(room.desk.call(call).await)?;
        let own = own_job(room, viewer, job).await;
        let charge = match &own {
            Some(own) => charge(room, own).await?,
            None => None,
        };
        let receipt = &stored["receipt"];
        let leaf = stored["captured_leaf"].as_u64();
        let entry = match (leaf, &own) {
            (Some(leaf), Some(_)) => room.books.entry_bytes(&room.desk, leaf).await.ok(),
            (Some(_) | None, _) => None,
        };
        let proof = stored["inclusion"]["tlog_proof"].as_str().map(str::to_owned);
        let can_rerun =
            room.options.reruns.is_some() && own.is_some() && receipt["proof_class"] == "re_executable";
        Ok(Facts {
            job,
            number: leaf.map_or_else(|| "No entry yet".to_owned(), |leaf| format!("No. {}", count(leaf))),
            cost: cost(&stored),
            asset: stored["cost"]["asset"].as_str().unwrap_or("").to_owned(),
            sentences: sentences(receipt, charge.as_ref(), &stored),
            steps: steps(receipt, leaf, charge.as_ref(), proof.as_deref()),
            shares: shares(charge.as_ref()),
            details: details(receipt),
            leaf,
            input_tokens: receipt["input_tokens"].as_u64().unwrap_or(0),
            output_tokens: receipt["output_tokens"].as_u64().unwrap_or(0),
            signed_receipt: text(&stored["signed_receipt"]),
            operator: text(&receipt["operator"]),
            entry: entry.map(|bytes| data_encoding::BASE64.encode(&bytes)),
            proof,
            log_key: log_key(room).await,
            can_rerun,
            rerun: rerun_words(room, own.is_some(), receipt),
        })
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn cost(stored: &Value) -> Option<String> {
    stored["cost"]["amount"].as_str().map(exact)
}

async fn charge(room: &Room, job: &Value) -> Result<Option<Charge>, PageError> {
    let charge = &job["charge"];
    if charge.is_null() {
        return Ok(None);
    }
    let amount = |key: &str| charge[key]["amount"].as_str().map(exact).unwrap_or_default();
    let card = job["rate_card_version"].as_u64().unwrap_or(0);
    let (version, model) = (u32::try_from(card).unwrap_or(0), text(&job["model"]));
    let price = room.desk.ledger().read(move |state| {
        let rate = query::rate_card_by_version(state, version)?.card.model(&model)?.clone();
        let asset = query::assets(state).get(rate.asset.0 as usize)?;
        let million = rate.price.0.checked_mul(1_000_000)? / i128::from(rate.per_units.max(1));
        Some(protocol::amount::Amount(million).to_decimal_string(asset.ledger_scale))
    });
    Ok(Some(Charge {
        input: charge["input_tokens"].as_u64().unwrap_or(0),
        output: charge["output_tokens"].as_u64().unwrap_or(0),
        cost: amount("cost"),
        asset: text(&charge["cost"]["asset"]),
        operator_share: amount("operator_share"),
        platform_share: amount("platform_share"),
        price: price.await?.as_deref().map(exact),
        card,
    }))
}

fn sentences(receipt: &Value, charge: Option<&Charge>, stored: &Value) -> Vec<String> {
    let input = receipt["input_tokens"].as_u64().unwrap_or(0);
    let output = receipt["output_tokens"].as_u64().unwrap_or(0);
    let mut said = vec![format!("The node counted {} tokens in and {} out.", count(input), count(output))];
    match (charge, cost(stored)) {
        (Some(charge), _) => {
            let tokens = count(charge.input + charge.output);
            let (cost, asset) = (&charge.cost, &charge.asset);
            if charge.output < output {
                let shown = count(charge.output);
                said.push(format!("You were shown {shown} of them when you stopped, and pay for no more."));
            }
            said.push(match &charge.price {
                Some(price) => format!(
                    "At {price} {asset} per million that is {cost} for {tokens} tokens, and exactly that left your balance."
                ),
                None => format!("{cost} {asset} for {tokens} tokens left your balance."),
            });
        }
        (None, Some(cost)) => said.push(format!("{cost} was charged for this answer.")),
        (None, None) => said.push("Nothing was charged for it.".to_owned()),
    }
    said
}

fn steps(receipt: &Value, leaf: Option<u64>, charge: Option<&Charge>, proof: Option<&str>) -> Vec<Step> {
    let step = |name: &str, text: String, holds: bool| Step { name: name.to_owned(), text, holds };
    let mut steps = vec![step(
        "Signed.",
        "The gateway checked that the operator's key signed this count before it charged anything."
            .to_owned(),
        true,
    )];
    steps.push(match (leaf, proof.and_then(tree_size)) {
        (Some(leaf), Some(size)) => step(
            "In the books.",
            format!(
                "The charge is entry {} of the log, and the signed tree of {} entries holds it.",
                count(leaf),
                count(size)
            ),
            true,
        ),
        (Some(leaf), None) => step(
            "In the books.",
            format!(
                "The charge is entry {} of the log; the next signed tree head will cover it in a moment.",
                count(leaf)
            ),
            false,
        ),
        (None, _) => step("No entry.", "This receipt led to no charge.".to_owned(), false),
    });
    if let Some(charge) = charge {
        let text = format!("Rate card {} was in force when the question was sent.", charge.card);
        steps.push(step("Price agrees.", text, charge.price.is_some()));
    }
    if receipt["proof_class"] != "re_executable" {
        let text =
            "This node's software is not ours: its count is attested, and nobody can run it again exactly.";
        steps.push(step("Attested only.", text.to_owned(), false));
    }
    steps
}

/// Leaves of the tree in a proof file: the second line of the checkpoint.
fn tree_size(proof: &str) -> Option<u64> {
    proof.split_once("\n\n")?.1.lines().nth(1)?.parse().ok()
}

fn shares(charge: Option<&Charge>) -> Vec<Row> {
    let Some(charge) = charge else { return Vec::new() };
    vec![
        row("the operator", &charge.operator_share),
        row("the network", &charge.platform_share),
        row("you paid", &charge.cost),
    ]
}

fn details(receipt: &Value) -> Vec<Row> {
    let class = match receipt["proof_class"].as_str() {
        Some("re_executable") => "anybody with the weights can run it again",
        _ => "attested by the node",
    };
    vec![
        row("node", text(&receipt["node"])),
        row("class", class),
        row("ended", receipt["finish"].as_str().map_or("", finish_words)),
        row("node's clock", utc(receipt["ended_us"].as_u64().unwrap_or(0))),
        row("software", text(&receipt["backend"])),
        row("digest", text(&receipt["chain_head"])),
        row("weights", text(&receipt["weights"])),
    ]
}

fn finish_words(finish: &str) -> &'static str {
    match finish {
        "stop" => "by itself",
        "length" => "at its length limit",
        _ => "it was stopped",
    }
}

/// The log's verifier key, from the policy file that the transparency log writes beside itself.
async fn log_key(room: &Room) -> Option<String> {
    let path = room.desk.data_dir().join("auditor.policy");
    let text = tokio::fs::read_to_string(path).await.ok()?;
    text.split_whitespace().find(|word| word.matches('+').count() >= 2).map(str::to_owned)
}

fn rerun_words(room: &Room, is_own: bool, receipt: &Value) -> String {
    if receipt["proof_class"] != "re_executable" {
        return "This answer's class cannot be run again exactly.".to_owned();
    }
    match (room.options.reruns.is_some(), is_own) {
        (false, _) => NO_RERUN.to_owned(),
        (true, false) => "Only the account that asked can have it run again; nobody else has the question.".to_owned(),
        (true, true) => {
            "We run the same question again on this machine and compare every token. It takes about as long as the \
             answer took and costs nothing."
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn receipt() -> Value {
        json!({"input_tokens": 12, "output_tokens": 30, "proof_class": "re_executable"})
    }

    fn charged(output: u64) -> Charge {
        Charge {
            input: 12,
            output,
            cost: "0.000168".to_owned(),
            asset: "FOIL".to_owned(),
            operator_share: "0.000134".to_owned(),
            platform_share: "0.000034".to_owned(),
            price: Some("4.00".to_owned()),
            card: 1,
        }
    }

    #[test]
    fn the_arithmetic_is_told_with_its_figures() {
        let said = sentences(&receipt(), Some(&charged(30)), &json!({}));
        assert_eq!(said.len(), 2);
        assert!(said[0].contains("12 tokens in and 30 out"), "{said:?}");
        assert!(said[1].contains("At 4.00 FOIL per million that is 0.000168 for 42 tokens"), "{said:?}");
    }

    #[test]
    fn a_stopped_answer_says_what_was_shown() {
        let said = sentences(&receipt(), Some(&charged(9)), &json!({}));
        assert!(said[1].contains("shown 9 of them when you stopped"), "{said:?}");
        assert_eq!(sentences(&receipt(), None, &json!({})).last().unwrap(), "Nothing was charged for it.");
    }

    #[test]
    fn the_tree_s_size_is_read_from_the_checkpoint() {
        let proof = "c2sp.org/tlog-proof@v1\nindex 3\nAAAA\n\nlog.example\n17\nroot=\n\n— sig";
        assert_eq!(tree_size(proof), Some(17));
        let said = steps(&receipt(), Some(3), None, Some(proof));
        assert!(
            said[1].holds && said[1].text.contains("entry 3") && said[1].text.contains("tree of 17"),
            "{said:?}"
        );
        assert!(!steps(&receipt(), Some(3), None, None)[1].holds, "not covered yet is not a proof");
    }
}
