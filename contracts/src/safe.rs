//! A settlement for a multisig: the file that Safe's Transaction Builder imports. Executing it gives the same state as
//! the settler's own transaction, when the multisig is the vault's settler. Writes no file, sends nothing.

use alloy::primitives::keccak256;
use serde_json::{Map, Value, json};

use crate::error::ChainError;
use crate::fixed_bytes::Address20;
use crate::manifest::Manifest;
use crate::settler::SettlementPlan;

/// Version of the file's form.
const FORM_VERSION: &str = "1.0";
/// The Transaction Builder whose form it is.
const BUILDER_VERSION: &str = "1.18.0";
/// Settlements in one file: more would not fit into one transaction.
pub const PLANS_MAX: usize = 8;

/// What a file is for.
#[derive(Debug, Clone)]
pub struct SafeBatch<'a> {
    /// The vault's manifest.
    pub manifest: &'a Manifest,
    /// The multisig.
    pub safe: Address20,
    /// The settlements in their order.
    pub plans: &'a [SettlementPlan],
    /// Milliseconds since 1970: from the events, so that the same batch gives the same bytes.
    pub created_at_ms: u64,
}

impl SafeBatch<'_> {
    /// The file's content.
    pub fn to_json(&self) -> Result<Value, ChainError> {
        self.require_in_order()?;
        let vault = self.manifest.vault.to_string();
        let transaction = |plan: &SettlementPlan| {
            json!({
                "to": vault,
                "value": "0",
                "data": format!("0x{}", data_encoding::HEXLOWER.encode(&plan.calldata())),
                "contractMethod": null,
                "contractInputsValues": null,
            })
        };
        let epochs: Vec<String> = self.plans.iter().map(|plan| plan.epoch.to_string()).collect();
        let mut file = json!({
            "version": FORM_VERSION,
            "chainId": self.manifest.chain_id.to_string(),
            "createdAt": self.created_at_ms,
            "meta": {
                "name": format!("Settlement of epoch {}", epochs.join(", ")),
                "description": "Debits users up to what they signed for, and posts the operators' payout root",
                "txBuilderVersion": BUILDER_VERSION,
                "createdFromSafeAddress": self.safe.to_string(),
                "createdFromOwnerAddress": "",
            },
            "transactions": self.plans.iter().map(transaction).collect::<Vec<Value>>(),
        });
        let checksum = checksum(&file);
        file["meta"]["checksum"] = checksum.into();
        Ok(file)
    }

    fn require_in_order(&self) -> Result<(), ChainError> {
        let epoch = self.plans.first().map_or(0, |plan| plan.epoch);
        let bad = |cause: String| Err(ChainError::BadPlan { epoch, cause });
        if self.plans.is_empty() || self.plans.len() > PLANS_MAX {
            return bad(format!("{} settlements in one file, expected 1 to {PLANS_MAX}", self.plans.len()));
        }
        match self.plans.windows(2).find(|pair| pair[1].epoch != pair[0].epoch + 1) {
            Some(pair) => bad(format!("epoch {} follows epoch {}", pair[1].epoch, pair[0].epoch)),
            None => Ok(()),
        }
    }
}

/// As the Transaction Builder computes it: keccak256 of the file without its name and checksum, keys sorted, spelt in
/// the builder's own way.
fn checksum(file: &Value) -> String {
    let mut file = file.clone();
    if let Some(meta) = file["meta"].as_object_mut() {
        meta.insert("name".to_string(), Value::Null);
        meta.remove("checksum");
    }
    format!("{:#x}", keccak256(spelt(&file)))
}

/// Objects become the JSON list of their sorted keys, then their values in that order with commas behind each.
fn spelt(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(spelt).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(fields) => spelt_object(fields),
        other => other.to_string(),
    }
}

fn spelt_object(fields: &Map<String, Value>) -> String {
    let mut keys: Vec<&String> = fields.keys().collect();
    keys.sort();
    let mut text = format!("{{{}", serde_json::to_string(&keys).expect("keys have a JSON form"));
    for key in keys {
        text.push_str(&spelt(&fields[key]));
        text.push(',');
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_spelt_as_the_builder_spells_them() {
        let value = json!({ "b": [1, "x"], "a": { "c": null } });
        assert_eq!(spelt(&value), r#"{["a","b"]{["c"]null,},[1,"x"],}"#);
    }
}
