//! A settlement batch as files: for people and programs (CSV, JSON), and for paying it from a Safe. A batch has one rail:
//! a payment file for any other is refused, because it would pay a second time.

use super::{ExportError, Provenance, cell, provenance_lines};
use protocol::amount::Amount;
use protocol::asset::{Asset, VAULT_SCALE};
use protocol::event::batch::{BatchClosed, Payout, Rail};
use protocol::event::chain::VaultRegistered;
use protocol::event::{Event, EventBody};
use protocol::id::{AccountId, BatchId, EvmAddress};
use serde_json::{Map, Value, json};
use sha3::{Digest, Keccak256};
use std::fmt::Write;

/// The version of the Safe app whose files these are like.
const TX_BUILDER_VERSION: &str = "1.18.2";

/// A batch with what its files need of the rest of the log.
#[derive(Clone, Debug)]
pub struct BatchFiles<'a> {
    batch: &'a BatchClosed,
    closed: &'a Event,
    vault: &'a VaultRegistered,
    asset: Asset,
    provenance: &'a Provenance,
}

impl<'a> BatchFiles<'a> {
    /// Finds the batch in the events.
    pub fn find(
        events: &'a [Event],
        batch: BatchId,
        provenance: &'a Provenance,
    ) -> Result<BatchFiles<'a>, ExportError> {
        let closed = events.iter().find_map(|event| match &event.body {
            EventBody::BatchClosed(closed) if closed.batch == batch => Some((event, closed)),
            _ => None,
        });
        let (closed, batch) = closed.ok_or(ExportError::UnknownBatch(batch))?;
        let vault = events.iter().find_map(|event| match &event.body {
            EventBody::VaultRegistered(vault) if vault.vault == batch.vault => Some(vault),
            _ => None,
        });
        let vault = vault.ok_or(ExportError::UnknownBatch(batch.batch))?;
        let asset = events.iter().find_map(|event| match &event.body {
            EventBody::NetworkOpened(network) => network.assets.get(batch.asset.0 as usize).cloned(),
            _ => None,
        });
        let asset = asset.ok_or(ExportError::UnknownBatch(batch.batch))?;
        Ok(BatchFiles { batch, closed, vault, asset, provenance })
    }

    /// The batch as it was closed.
    pub fn closed(&self) -> &BatchClosed {
        self.batch
    }

    /// When, log time.
    pub fn closed_time_us(&self) -> u64 {
        self.closed.header.time_us
    }

    /// In which asset it pays.
    pub fn asset(&self) -> &Asset {
        &self.asset
    }

    /// Where its figures come from.
    pub fn provenance(&self) -> &Provenance {
        self.provenance
    }

    /// One row a charge or payout.
    pub fn csv(&self) -> String {
        let (charged, paid) = self.totals();
        let extra = [
            format!("batch: {} number {}", self.batch.batch, self.batch.number),
            format!("rail: {}", rail(self.batch.rail)),
            format!("rows: {}", self.batch.charges.len() + self.batch.payouts.len()),
            format!("control total {}: charged {charged}, paid {paid}", self.asset.symbol),
        ];
        let mut text = provenance_lines("#", ("batch", "all figures are positive"), self.provenance, &extra);
        text.push_str("kind,account,address,amount,cumulative,asset,units,unit_scale\n");
        let symbol = cell(&self.asset.symbol);
        let mut row = |kind: &str, account: &str, address: EvmAddress, added: u64, all: u64| {
            let (amount, cumulative) = (money(added), money(all));
            writeln!(text, "{kind},{account},{address},{amount},{cumulative},{symbol},{added},{VAULT_SCALE}")
                .expect("writing to a string");
        };
        for charge in &self.batch.charges {
            row("charge", "", charge.wallet, charge.added_units, charge.cumulative_units);
        }
        for payout in &self.batch.payouts {
            let account = match payout.account {
                AccountId::SYSTEM => "platform".to_owned(),
                account => account.to_string(),
            };
            row("payout", &account, payout.address, payout.added_units, payout.cumulative_units);
        }
        text
    }

    /// The same as one JSON object; amounts are strings.
    pub fn json(&self) -> String {
        let batch = self.batch;
        let line = |address: EvmAddress, added: u64, all: u64| {
            json!({"address": address.to_string(), "units": added.to_string(), "amount": money(added),
                "cumulative_units": all.to_string(), "cumulative": money(all)})
        };
        let charges = batch.charges.iter().map(|c| line(c.wallet, c.added_units, c.cumulative_units));
        let payouts = batch.payouts.iter().map(|p| {
            let mut value = line(p.address, p.added_units, p.cumulative_units);
            value["account"] = json!(p.account);
            value
        });
        let (charged, paid) = self.totals();
        let value = json!({
            "provenance": self.provenance.json("batch"),
            "batch": batch.batch, "number": batch.number, "rail": rail(batch.rail),
            "vault": batch.vault, "asset": self.asset.symbol, "unit_scale": VAULT_SCALE,
            "cutoff_leaf": batch.cutoff_leaf, "closed_leaf": self.closed.header.leaf,
            "control_total": {"charged": charged, "paid": paid},
            "charges": charges.collect::<Vec<_>>(), "payouts": payouts.collect::<Vec<_>>(),
        });
        super::json_text(value)
    }

    /// For the Safe's Transaction Builder: a transfer a payee out of this Safe, with the app's checksum.
    pub fn safe(&self, safe: EvmAddress) -> Result<String, ExportError> {
        self.check_rail(Rail::Safe)?;
        let transactions: Result<Vec<Value>, ExportError> =
            self.paid().map(|payout| self.transfer(payout)).collect();
        let root = self.provenance.root.map_or_else(|| "none".to_owned(), |root| root.to_string());
        let mut file = json!({
            "version": "1.0",
            "chainId": self.batch.vault.chain_id.to_string(),
            // Of the close, so that the same batch is the same file.
            "createdAt": self.closed.header.time_us / 1_000,
            "meta": {
                "name": self.batch.batch.to_string(),
                "description": format!("{} size {} root {root}", self.provenance.origin, self.provenance.size),
                "txBuilderVersion": TX_BUILDER_VERSION,
                "createdFromSafeAddress": safe.to_string(),
                "createdFromOwnerAddress": "",
            },
            "transactions": transactions?,
        });
        let checksum = safe_checksum(&file);
        file["meta"]["checksum"] = Value::String(checksum);
        Ok(super::json_text(file))
    }

    /// For the Safe's CSV Airdrop: display units, one row a payee.
    pub fn safe_airdrop(&self) -> Result<String, ExportError> {
        self.check_rail(Rail::Safe)?;
        let mut text = "token_type,token_address,receiver,amount,id\n".to_owned();
        for payout in self.paid() {
            writeln!(text, "erc20,{},{},{},", self.vault.token, payout.address, money(payout.added_units))
                .expect("writing to a string");
        }
        Ok(text)
    }

    /// What is charged and what is paid; a batch has them equal.
    fn totals(&self) -> (String, String) {
        let charged: u64 = self.batch.charges.iter().map(|charge| charge.added_units).sum();
        let paid: u64 = self.batch.payouts.iter().map(|payout| payout.added_units).sum();
        (money(charged), money(paid))
    }

    /// Payees that get something now.
    fn paid(&self) -> impl Iterator<Item = &Payout> {
        self.batch.payouts.iter().filter(|payout| payout.added_units > 0)
    }

    fn transfer(&self, payout: &Payout) -> Result<Value, ExportError> {
        let value = self.token_units(payout.added_units)?;
        let input = |name: &str, kind: &str| json!({"internalType": kind, "name": name, "type": kind});
        Ok(json!({
            "to": self.vault.token.to_string(),
            "value": "0",
            "data": null,
            "contractMethod": {
                "inputs": [input("to", "address"), input("value", "uint256")],
                "name": "transfer",
                "payable": false,
            },
            "contractInputsValues": {"to": payout.address.to_string(), "value": value.to_string()},
        }))
    }

    /// Vault units in the token's own base units.
    fn token_units(&self, units: u64) -> Result<u128, ExportError> {
        let off_chain = || ExportError::NotOnChain(self.asset.symbol.clone());
        let scale =
            self.asset.chain_scale.and_then(|scale| scale.checked_sub(VAULT_SCALE)).ok_or_else(off_chain)?;
        let unit = 10u128.checked_pow(u32::from(scale)).ok_or_else(off_chain)?;
        u128::from(units).checked_mul(unit).ok_or_else(off_chain)
    }

    /// Refuses a payment file for a rail that the batch does not have.
    pub fn check_rail(&self, asked: Rail) -> Result<(), ExportError> {
        if self.batch.rail == asked {
            return Ok(());
        }
        let (rail, asked) = (rail(self.batch.rail), rail(asked));
        Err(ExportError::OtherRail { batch: self.batch.batch, rail, asked })
    }
}

fn money(units: u64) -> String {
    Amount(i128::from(units)).to_decimal_string(VAULT_SCALE)
}

fn rail(rail: Rail) -> &'static str {
    match rail {
        Rail::RootClaims => "root_claims",
        Rail::Safe => "safe",
        Rail::FiatFile => "fiat_file",
    }
}

/// The Transaction Builder's checksum: keccak256 of the file with sorted keys, with `meta.name` as null and without the
/// checksum itself.
pub fn safe_checksum(file: &Value) -> String {
    let mut file = file.clone();
    if let Some(meta) = file.get_mut("meta").and_then(Value::as_object_mut) {
        meta.insert("name".to_owned(), Value::Null);
        meta.remove("checksum");
    }
    let mut text = String::new();
    serialise(&file, &mut text);
    let hash = Keccak256::digest(text.as_bytes());
    format!("0x{}", data_encoding::HEXLOWER.encode(&hash))
}

/// The app's own form: `{["a","b"]1,2,}` for an object, JSON for the rest.
fn serialise(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (k, item) in items.iter().enumerate() {
                if k > 0 {
                    out.push(',');
                }
                serialise(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let keys = sorted_keys(map);
            out.push('{');
            out.push_str(&Value::from(keys.clone()).to_string());
            for key in keys {
                serialise(&map[&key], out);
                out.push(',');
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

fn sorted_keys(map: &Map<String, Value>) -> Vec<String> {
    let mut keys: Vec<String> = map.keys().cloned().collect();
    keys.sort();
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that the Safe app made, with the checksum it wrote (from 5afe/safe-cli-nodejs, the format's analysis).
    #[test]
    fn the_checksum_is_the_apps_own() {
        let input = |name: &str, kind: &str| json!({"internalType": kind, "name": name, "type": kind});
        let file = json!({
            "version": "1.0", "chainId": "1", "createdAt": 1_761_326_849_944_u64,
            "meta": {"name": "Transactions Batch", "description": "", "txBuilderVersion": "1.18.2",
                "createdFromSafeAddress": "0xA77DE01e157f9f57C7c4A326eeE9C4874D0598b6",
                "createdFromOwnerAddress": "", "checksum": "not part of it"},
            "transactions": [{
                "to": "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "value": "0", "data": null,
                "contractMethod": {"inputs": [input("spender", "address"), input("value", "uint256")],
                    "name": "approve", "payable": false},
                "contractInputsValues": {"spender": "0x474e5Ded6b5D078163BFB8F6dBa355C3aA5478C8",
                    "value": "100000000000"},
            }],
        });
        let expected = "0x8b5032f716845c8b08bab3d63dbd9ba92e056f3557793cd041e59b84e16aa989";
        assert_eq!(safe_checksum(&file), expected);
    }
}
