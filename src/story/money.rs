//! The story's settlement, claim and withdrawal.

use super::Teller;
use super::customer::Customer;
use super::events::EventLog;
use super::http::Http;
use crate::network::Network;
use anyhow::{Context, Result};
use contracts::dev;
use contracts::settlement::{batch_path, read_published};
use contracts::vouchers::{SignedVoucher, WithdrawalVoucher};
use protocol::amount::Amount;
use protocol::asset::VAULT_SCALE;
use protocol::event::EventBody;
use protocol::id::{EvmAddress, EvmSignature, Word32};
use serde_json::{Value, json};

/// Closes the epoch, settles on the chain, has the operator claim.
pub async fn settle_and_claim(network: &Network, events: &EventLog, tell: &Teller<'_>) -> Result<()> {
    let settled = network.settlement.settle_once().await?;
    let (batch, settlement) = settled.context("nothing was due for settlement")?;
    let pick = |body: &EventBody| match body {
        EventBody::BatchConfirmed(e) if e.batch == batch => Some(e.clone()),
        _ => None,
    };
    let (event, confirmed) = events.find("settlement", pick).await?;
    let decimal = |units: u64| Amount(i128::from(units)).to_decimal_string(VAULT_SCALE);
    let text = format!(
        "Epoch {} was closed and settled in block {} (gas {}): the vault charged {} FOIL to the signed caps and funded the \
         payouts pot. The transaction carries the payout root and a commitment to the log's checkpoint.",
        settlement.epoch,
        confirmed.block,
        settlement.mined.gas_used,
        decimal(settlement.total)
    );
    let figures = json!({"batch": batch, "epoch": settlement.epoch, "charged": decimal(settlement.total),
        "tx": confirmed.tx, "gas": settlement.mined.gas_used});
    tell.step("settlement", &text, Some(&event), figures);
    claim(network, settlement.epoch, events, tell).await
}

async fn claim(network: &Network, epoch: u64, events: &EventLog, tell: &Teller<'_>) -> Result<()> {
    let path = batch_path(&network.data.join("chain/batches"), epoch);
    let published = read_published(&path)?.context("the settled batch is published")?;
    let operator = network.roles.operator.address();
    let claim = published.plan.claim(operator).context("the operator earns in this batch")?;
    let delay = u64::from(network.deployment.manifest().root_delay_s);
    // The root can be refused for a while; the development chain's clock is moved past it.
    dev::increase_time(network.deployment.chain(), delay + 1).await?;
    let mined = network.deployment.claim(&network.roles.operator, &claim).await?;
    let tx = Word32(mined.tx.0);
    let pick = |body: &EventBody| match body {
        EventBody::PayoutClaimed(e) if e.tx == tx => Some(e.clone()),
        _ => None,
    };
    let (event, paid) = events.find("claim", pick).await?;
    let decimal = Amount(i128::from(paid.units)).to_decimal_string(VAULT_SCALE);
    let text = format!(
        "The operator claimed with a Merkle proof against that root and the pot paid {decimal} FOIL to {} (gas {}).",
        paid.address, mined.gas_used
    );
    tell.step("claim", &text, Some(&event), json!({"amount": decimal, "to": paid.address, "tx": paid.tx}));
    Ok(())
}

/// Takes everything unspent out of the vault.
pub async fn withdraw(
    network: &Network,
    customer: &Customer,
    events: &EventLog,
    tell: &Teller<'_>,
) -> Result<()> {
    let http = Http::new(&network.gateway_url).with_key(&customer.api_key);
    let wallet = customer.wallet();
    let (vault, address) =
        (crate::network::chain_door::vault_ref(&network.deployment), EvmAddress(wallet.address().0));
    let units = network.client.read(move |state| ledger::query::withdrawable(state, vault, address)).await?;
    let amount = Amount(i128::from(units)).to_decimal_string(VAULT_SCALE);
    let voucher = http.post("/v1/withdrawals", json!({"amount": amount})).await?;
    let mined = network.deployment.withdraw(&wallet, wallet.address(), &signed(&voucher, &wallet)?).await?;
    let tx = Word32(mined.tx.0);
    let pick = |body: &EventBody| match body {
        EventBody::VoucherRedeemed(e) if e.tx == tx => Some(()),
        _ => None,
    };
    let (event, ()) = events.find("withdrawal", pick).await?;
    let balance = http.get("/v1/balance").await?;
    let rest = balance["balances"][0]["total"].as_str().unwrap_or("0").to_owned();
    let text = format!(
        "All unspent credit, {amount} FOIL, went back to the wallet by voucher (gas {}). {rest} FOIL is below the chain's \
         smallest unit (0.000001) and stays on the account.",
        mined.gas_used
    );
    tell.step(
        "withdrawal",
        &text,
        Some(&event),
        json!({"amount": amount, "remainder": rest, "tx": Word32(mined.tx.0)}),
    );
    Ok(())
}

fn signed(voucher: &Value, wallet: &contracts::key::EvmKey) -> Result<SignedVoucher> {
    let number = |name: &str| voucher[name].as_u64().with_context(|| format!("no {name} in the voucher"));
    let signature: EvmSignature =
        voucher["signature"].as_str().context("no signature in the voucher")?.parse()?;
    let terms = WithdrawalVoucher {
        account: wallet.address(),
        units: number("units")?,
        nonce: number("nonce")?,
        deadline: u32::try_from(number("deadline_s")?)?,
    };
    Ok(SignedVoucher { voucher: terms, signature: signature.0.to_vec() })
}
