//! A customer of the development network: an account without a wallet, then one signature, then a deposit.

use super::Teller;
use super::events::EventLog;
use super::http::Http;
use crate::network::Network;
use crate::network::chain_door::vault_ref;
use crate::network::secrets::{FIRST_CUSTOMER_KEY, load_or_create};
use anyhow::{Context, Result};
use contracts::dev;
use contracts::fixed_bytes::{Address20, Hash32};
use contracts::key::EvmKey;
use contracts::vouchers::SpendAuthorisation;
use protocol::amount::Amount;
use protocol::asset::VAULT_SCALE;
use protocol::event::EventBody;
use protocol::id::{AccountId, EvmAddress, EvmSignature};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a customer deposits, whole tokens.
const DEPOSIT: &str = "5";
/// What the wallet authorises in all, whole tokens.
const LIMIT: &str = "20";
/// The chain's own coin for gas: 10, with 18 digits.
const GAS_WEI: u128 = 10_000_000_000_000_000_000;

/// An account, its API key and its wallet (a development key, by number).
#[derive(Clone, Serialize, Deserialize)]
pub struct Customer {
    /// The account.
    pub account: AccountId,
    /// Its first key.
    pub api_key: String,
    /// Which development key is its wallet.
    pub wallet_number: u32,
}

impl Customer {
    /// The wallet.
    pub fn wallet(&self) -> EvmKey {
        EvmKey::development(self.wallet_number)
    }

    /// Opens an account, authorises and deposits, telling each step.
    pub async fn arrive(network: &Network, events: &EventLog, tell: &Teller<'_>) -> Result<Customer> {
        let customer = Self::open(network, events, tell).await?;
        customer.authorise(network, events, tell).await?;
        customer.deposit(network, events, tell).await?;
        Ok(customer)
    }

    /// The customer that `up` hands to its user: made once per data directory, funded.
    pub async fn of_this_directory(network: &Network, events: &EventLog) -> Result<Customer> {
        let path = network.data.join("keys/customer.json");
        if !path.exists() {
            let customer = Self::arrive(network, events, &Teller::silent()).await?;
            crate::network::secrets::write_secret(&path, &serde_json::to_string(&customer)?)?;
        }
        let text = load_or_create(&path, || anyhow::bail!("{} vanished", path.display()))?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    async fn open(network: &Network, events: &EventLog, tell: &Teller<'_>) -> Result<Customer> {
        let opened = Http::new(&network.gateway_url).post("/v1/accounts", json!({})).await?;
        let account: AccountId = opened["account"].as_str().context("no account in the answer")?.parse()?;
        let api_key = opened["api_key"].as_str().context("no key in the answer")?.to_owned();
        let vault = vault_ref(&network.deployment);
        let wallets = network.client.read(move |state| ledger::query::wallets(state, vault).len()).await?;
        let wallet_number = FIRST_CUSTOMER_KEY + wallets as u32;
        let (event, ()) = events.find("account", |body| is_account(body, account)).await?;
        let text = format!("Account {account} was opened: no wallet, no signature, no personal datum.");
        tell.step("account", &text, Some(&event), json!({"account": account}));
        Ok(Customer { account, api_key, wallet_number })
    }

    async fn authorise(&self, network: &Network, events: &EventLog, tell: &Teller<'_>) -> Result<()> {
        let http = Http::new(&network.gateway_url).with_key(&self.api_key);
        let wallet = self.wallet();
        let address = EvmAddress(wallet.address().0);
        dev::set_coin_balance(network.deployment.chain(), wallet.address(), GAS_WEI).await?;
        let nonce = http.post("/v1/sessions/nonce", json!({})).await?;
        let nonce = nonce["nonce"].as_str().context("no nonce in the answer")?;
        let page = format!("/v1/authorisations/typed-data?nonce={nonce}&wallet={address}&limit={LIMIT}");
        let asked = http.get(&page).await?;
        let signature = sign(&asked, &wallet, network)?;
        let body = json!({"nonce": nonce, "wallet": address, "signature": signature,
            "max_cumulative_units": asked["max_cumulative_units"], "valid_until_s": asked["valid_until_s"],
            "chain_nonce": asked["chain_nonce"]});
        http.post("/v1/authorisations", body).await?;
        let pick = |body: &EventBody| match body {
            EventBody::SpendAuthorised(e) if e.account == self.account => Some(e.clone()),
            _ => None,
        };
        let (event, authorised) = events.find("authorisation", pick).await?;
        let text = format!(
            "Wallet {address} signed once: it signs in and may be charged up to {LIMIT} FOIL in all. No signature and no gas \
             per message from here on."
        );
        let figures = json!({"wallet": address, "max_cumulative_units": authorised.max_cumulative_units});
        tell.step("authorisation", &text, Some(&event), figures);
        Ok(())
    }

    async fn deposit(&self, network: &Network, events: &EventLog, tell: &Teller<'_>) -> Result<()> {
        let (deployment, wallet) = (&network.deployment, self.wallet());
        let units = Amount::parse_decimal(DEPOSIT, VAULT_SCALE)?;
        let units = u64::try_from(units.0).context("the deposit is a small positive figure")?;
        dev::mint(deployment, &network.roles.deployer, wallet.address(), units).await?;
        let mined = dev::approve_and_deposit(deployment, &wallet, wallet.address(), units).await?;
        let mut status = network.mirror.clone();
        let confirmations = async {
            // Each new confirmation is told once; the event ends it.
            let mut told = None;
            while status.changed().await.is_ok() {
                let seen = status.borrow_and_update().pending.first().map(|p| (p.confirmations, p.needed));
                if let Some((confirmations, needed)) = seen.filter(|s| Some(*s) != told) {
                    tell.note(&format!("deposit: {confirmations} of {needed} confirmations"));
                    told = seen;
                }
            }
            std::future::pending::<()>().await;
        };
        let address = EvmAddress(wallet.address().0);
        let pick = |body: &EventBody| match body {
            EventBody::DepositConfirmed(e) if e.wallet == address => Some(e.clone()),
            _ => None,
        };
        let (event, deposit) = tokio::select! {
            found = events.find("deposit", pick) => found?,
            () = confirmations => anyhow::bail!("unreachable: the watcher's status never ends first"),
        };
        let text = format!(
            "{DEPOSIT} FOIL went into the vault in block {} (gas {}); after its confirmations they are a spendable balance. \
             Custody is on-chain; metering is off-chain.",
            deposit.block, mined.gas_used
        );
        let figures =
            json!({"amount": DEPOSIT, "asset": "FOIL", "block": deposit.block, "tx": deposit.key.tx});
        tell.step("deposit", &text, Some(&event), figures);
        Ok(())
    }
}

fn is_account(body: &EventBody, account: AccountId) -> Option<()> {
    matches!(body, EventBody::AccountOpened(e) if e.account == account).then_some(())
}

/// What a wallet does with typed data: checks nothing but whose it is, signs the digest.
fn sign(asked: &Value, wallet: &EvmKey, network: &Network) -> Result<EvmSignature> {
    let number = |name: &str| asked[name].as_u64().with_context(|| format!("no {name} in the answer"));
    let session = asked["session"].as_str().context("no session in the answer")?;
    let session: protocol::id::Hash32 = session.parse()?;
    let authorisation = SpendAuthorisation {
        account: Address20(wallet.address().0),
        coordinator: network.deployment.manifest().coordinator,
        max_cumulative: number("max_cumulative_units")?,
        valid_until: u32::try_from(number("valid_until_s")?)?,
        nonce: number("chain_nonce")?,
        session: Hash32(session.0),
    };
    let signed = authorisation.sign(wallet, &network.deployment.domain());
    let bytes: [u8; 65] = signed.signature.as_slice().try_into().context("a key's signature has 65 bytes")?;
    Ok(EvmSignature(bytes))
}
