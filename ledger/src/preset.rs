//! Presets: what a network is, as a typed file. `src` parses the TOML; here are its fields, their checks, and the
//! commands it becomes. Unknown keys are refused by the parser.

mod economy;

pub use economy::*;

use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId, VAULT_SCALE};
use protocol::codec;
use protocol::event::policy::{NetworkOpened, Settings};
use protocol::id::Hash32;
use protocol::rate::{ModelRate, ProofClass, RateCard, Unit};
use serde::Deserialize;

/// Most bytes of a name: models, licences, presets.
pub const NAME_BYTES_MAX: usize = 128;
/// Highest price of a rate, base units: 10^30.
pub const PRICE_MAX: i128 = 10i128.pow(30);
/// Most assets of one network.
pub const ASSETS_MAX: usize = 64;
/// No period is longer than ten years.
const PERIOD_US_MAX: u64 = 10 * 366 * 86_400 * 1_000_000;

/// Why a preset cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PresetError {
    /// A field outside its bounds.
    #[error("{field}: {expected}, got {given}")]
    OutOfBounds {
        /// Which field.
        field: String,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        given: String,
    },
    /// A price that is not exact in the asset's scale.
    #[error("the price of {model}: {reason}")]
    Price {
        /// Whose.
        model: String,
        /// Why.
        reason: String,
    },
    /// A rate names an asset that the preset does not have.
    #[error("{model} is priced in {asset}, which is not one of the preset's assets")]
    AssetUnknown {
        /// Whose.
        model: String,
        /// The symbol.
        asset: String,
    },
    /// Nobody brought the hashes of a model's file.
    #[error("the hashes of model {0} are missing: read them from its file")]
    HashesMissing(String),
}

/// A whole preset file.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Its name, as in `--preset`.
    pub name: String,
    /// The assets, in the order of their numbers.
    pub assets: Vec<PresetAsset>,
    /// Rules in force from the start.
    pub settings: PresetSettings,
    /// The first rate card.
    pub rate_card: PresetRateCard,
    /// Allotments, sign-up credit, bounties, conduct, packages.
    pub economy: Option<PresetEconomy>,
    /// What stands on the chain beside the vault.
    pub chain: Option<PresetChain>,
}

/// Stake, votes, treasury and packages on the chain.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetChain {
    /// Seconds between the start of an unbonding and its payment.
    pub unbond_delay_s: u32,
    /// Seconds between a proposal and its snapshot.
    pub voting_delay_s: u32,
    /// Seconds that a vote takes.
    pub voting_period_s: u32,
    /// Percent of all stake that must take part.
    pub quorum_percent: u8,
    /// The package on the price list, if any.
    pub package: Option<PresetPackage>,
}

/// A package that is sold on the chain.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetPackage {
    /// Its price in whole stable tokens.
    pub price: String,
    /// Whole credits that it gives.
    pub credits: String,
    /// For so many seconds.
    pub validity_s: u32,
}

/// One asset of a preset.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetAsset {
    /// Short symbol.
    pub symbol: String,
    /// Digits after the point in the ledger.
    pub ledger_scale: u8,
    /// Digits of the token on its chain; absent for an asset that lives only here.
    pub chain_scale: Option<u8>,
}

/// The numbers of [`Settings`], periods in seconds.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetSettings {
    /// Length of a settlement period.
    pub epoch_s: u64,
    /// How long a hold outlives its job's deadline.
    pub hold_grace_s: u64,
    /// Longest time between dispatch and a job's deadline.
    pub job_deadline_s_max: u64,
    /// How long a client's idempotency key is remembered.
    pub idempotency_s: u64,
    /// Charges below this many vault units wait for more; 0 settles everything.
    pub settle_units_min: u64,
    /// How long a withdrawal voucher can be used.
    pub voucher_s: u64,
    /// Spending stops this many epochs before a spend authorisation's end.
    pub authorisation_margin_epochs: u32,
}

/// The first rate card.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetRateCard {
    /// What a rate must leave for the platform, millionths of the price.
    pub headroom_ppm: u32,
    /// The models and their prices.
    pub models: Vec<PresetRate>,
}

/// One model of the card, without the hashes of its file.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetRate {
    /// The name clients send.
    pub model: String,
    /// SPDX expression of the weights' open licence.
    pub licence: String,
    /// `re_executable` or `attested`.
    pub proof_class: PresetProofClass,
    /// Symbol of the asset prices are in.
    pub asset: String,
    /// What is counted.
    #[serde(default)]
    pub unit: PresetUnit,
    /// Decimal text in whole units of the asset; the price of `per_units` units.
    pub price: String,
    /// What `per_units` units cost an operator, in whole units of the asset: its share must cover it.
    pub cost: Option<String>,
    /// The price's denominator.
    pub per_units: u64,
    /// The operator's share, millionths.
    pub operator_share_ppm: u32,
    /// Longest prompt plus output.
    pub context_tokens: u32,
}

/// [`Unit`] as a preset writes it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PresetUnit {
    /// Input plus output tokens.
    #[default]
    Token,
    /// Generated images.
    Image,
    /// Seconds of audio.
    Second,
    /// Calls.
    Request,
}

impl From<PresetUnit> for Unit {
    fn from(unit: PresetUnit) -> Unit {
        match unit {
            PresetUnit::Token => Unit::Token,
            PresetUnit::Image => Unit::Image,
            PresetUnit::Second => Unit::Second,
            PresetUnit::Request => Unit::Request,
        }
    }
}

/// [`ProofClass`] as a preset writes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PresetProofClass {
    /// Anybody re-runs the job and gets the same bits.
    ReExecutable,
    /// A foreign backend signed what it delivered.
    Attested,
}

/// What a model's file says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ModelHashes {
    /// SHA-256 of the weights' file.
    pub weights: Hash32,
    /// Hash of the tokenizer's tables.
    pub tokenizer: Hash32,
    /// Hash of the chat template.
    pub template: Hash32,
}

impl Preset {
    /// The command that opens the network; `preset_hash` in it is BLAKE3 over assets and settings as they enter the
    /// log, so that comments in the file do not matter.
    pub fn network(&self, origin: &str) -> Result<NetworkOpened, PresetError> {
        let seconds = |value: u64| value.saturating_mul(1_000_000);
        let settings = Settings {
            epoch_us: seconds(self.settings.epoch_s),
            hold_grace_us: seconds(self.settings.hold_grace_s),
            job_deadline_us_max: seconds(self.settings.job_deadline_s_max),
            idempotency_us: seconds(self.settings.idempotency_s),
            settle_units_min: self.settings.settle_units_min,
            voucher_us: seconds(self.settings.voucher_s),
            authorisation_margin_epochs: self.settings.authorisation_margin_epochs,
            capture_tolerance_ppm: None,
        };
        let asset = |(k, asset): (usize, &PresetAsset)| Asset {
            id: AssetId(k as u32),
            symbol: asset.symbol.clone(),
            ledger_scale: asset.ledger_scale,
            chain_scale: asset.chain_scale,
        };
        let assets: Vec<Asset> = self.assets.iter().enumerate().map(asset).collect();
        let canonical = [codec::encode(&assets), codec::encode(&settings)].concat();
        let preset_hash = Hash32(blake3::derive_key("counterfoil preset 1", &canonical));
        let (origin, preset) = (origin.to_owned(), self.name.clone());
        let network = NetworkOpened { origin, preset, preset_hash, assets, settings };
        check_network(&network)?;
        Ok(network)
    }

    /// The first rate card, effective at once; `hashes` gives what each model's file says.
    pub fn rate_card(&self, hashes: impl Fn(&str) -> Option<ModelHashes>) -> Result<RateCard, PresetError> {
        let mut models = Vec::with_capacity(self.rate_card.models.len());
        for rate in &self.rate_card.models {
            let model = || rate.model.clone();
            let at = self.assets.iter().position(|asset| asset.symbol == rate.asset);
            let missing = || PresetError::AssetUnknown { model: model(), asset: rate.asset.clone() };
            let at = at.ok_or_else(missing)?;
            let price = Amount::parse_decimal(&rate.price, self.assets[at].ledger_scale);
            let price = price.map_err(|e| PresetError::Price { model: model(), reason: e.to_string() })?;
            let file = hashes(&rate.model).ok_or_else(|| PresetError::HashesMissing(model()))?;
            models.push(ModelRate {
                model: rate.model.clone(),
                weights: file.weights,
                tokenizer: file.tokenizer,
                template: file.template,
                licence: rate.licence.clone(),
                proof_class: match rate.proof_class {
                    PresetProofClass::ReExecutable => ProofClass::ReExecutable,
                    PresetProofClass::Attested => ProofClass::Attested,
                },
                asset: AssetId(at as u32),
                unit: rate.unit.into(),
                price,
                per_units: rate.per_units,
                operator_share_ppm: rate.operator_share_ppm,
                context_tokens: rate.context_tokens,
            });
        }
        models.sort_by(|a, b| a.model.cmp(&b.model));
        Ok(RateCard { version: 1, effective_us: 0, headroom_ppm: self.rate_card.headroom_ppm, models })
    }
}

impl Preset {
    /// What the parser cannot see: shares that leave no headroom, prices below cost, economies that cannot work.
    pub fn check(&self) -> Result<(), PresetError> {
        self.network("check")?;
        self.rate_card(|_| Some(ModelHashes { weights: NO_HASH, tokenizer: NO_HASH, template: NO_HASH }))?;
        for (place, rate) in self.rate_card.models.iter().enumerate() {
            self.check_rate(place, rate)?;
        }
        self.economy().map(|_| ())
    }

    fn check_rate(&self, place: usize, rate: &PresetRate) -> Result<(), PresetError> {
        let outside = |name: &str, expected, given| {
            Err(PresetError::OutOfBounds {
                field: format!("rate_card.models[{place}].{name}"),
                expected,
                given,
            })
        };
        if rate.per_units == 0 {
            return outside("per_units", "at least 1", "0".to_owned());
        }
        let (share, headroom) = (rate.operator_share_ppm, self.rate_card.headroom_ppm);
        if u64::from(share) + u64::from(headroom) > 1_000_000 {
            let sum = u64::from(share) + u64::from(headroom);
            let given = format!("{share} + {headroom} = {sum} ppm");
            return outside(
                "operator_share_ppm",
                "with headroom_ppm at most 1000000 ppm, the whole price",
                given,
            );
        }
        let Some(cost) = &rate.cost else { return Ok(()) };
        let asset = self.assets.iter().find(|asset| asset.symbol == rate.asset);
        let scale = asset.map_or(0, |asset| asset.ledger_scale);
        let amounts = (Amount::parse_decimal(&rate.price, scale), Amount::parse_decimal(cost, scale));
        let (Ok(price), Ok(cost_amount)) = amounts else {
            return outside("cost", "a decimal with at most the asset's digits, as text", cost.clone());
        };
        let paid = price.0.saturating_mul(i128::from(share)) / 1_000_000;
        if paid < cost_amount.0 {
            let paid = Amount(paid).to_decimal_string(scale);
            let given = format!(
                "{} x {share} ppm = {paid} for {} units that cost {cost}",
                rate.price, rate.per_units
            );
            return outside("price", "a rate whose operator's share covers the cost", given);
        }
        Ok(())
    }
}

/// Stands for a file's hash where only prices are looked at.
const NO_HASH: Hash32 = Hash32([0; 32]);

/// Checks what a network opens with.
pub fn check_network(network: &NetworkOpened) -> Result<(), PresetError> {
    let outside = |field: &str, expected, given: String| {
        Err(PresetError::OutOfBounds { field: field.to_owned(), expected, given })
    };
    let name_fits = |name: &str| !name.is_empty() && name.len() <= NAME_BYTES_MAX;
    if !name_fits(&network.origin) || !name_fits(&network.preset) {
        return outside("origin and preset", "1 to 128 bytes each", network.origin.clone());
    }
    if network.assets.is_empty() || network.assets.len() > ASSETS_MAX {
        return outside("assets", "1 to 64", network.assets.len().to_string());
    }
    for (k, asset) in network.assets.iter().enumerate() {
        check_asset(asset, k, &network.assets[..k])?;
    }
    let Settings { epoch_us, hold_grace_us, job_deadline_us_max, idempotency_us, voucher_us, .. } =
        network.settings;
    for (field, period_us) in [
        ("epoch", epoch_us),
        ("job_deadline_max", job_deadline_us_max),
        ("idempotency", idempotency_us),
        ("voucher", voucher_us),
    ] {
        if period_us == 0 || period_us > PERIOD_US_MAX {
            return outside(field, "above 0 and at most ten years", format!("{period_us} us"));
        }
    }
    if hold_grace_us > PERIOD_US_MAX {
        return outside("hold_grace", "at most ten years", format!("{hold_grace_us} us"));
    }
    if network.settings.authorisation_margin_epochs > 1_000 {
        let given = network.settings.authorisation_margin_epochs.to_string();
        return outside("authorisation_margin_epochs", "at most 1000", given);
    }
    Ok(())
}

fn check_asset(asset: &Asset, place: usize, before: &[Asset]) -> Result<(), PresetError> {
    let outside = |part: &str, expected, given: String| {
        Err(PresetError::OutOfBounds { field: format!("assets[{place}].{part}"), expected, given })
    };
    if asset.id.0 as usize != place {
        return outside("id", "its place in the list", asset.id.0.to_string());
    }
    let symbol_fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
    let fits = (2..=12).contains(&asset.symbol.len()) && asset.symbol.chars().all(symbol_fits);
    if !fits || before.iter().any(|other| other.symbol == asset.symbol) {
        return outside("symbol", "2 to 12 upper case letters and digits, none twice", asset.symbol.clone());
    }
    if asset.ledger_scale > 18 {
        return outside("ledger_scale", "0 to 18", asset.ledger_scale.to_string());
    }
    if let Some(chain_scale) = asset.chain_scale {
        if !(VAULT_SCALE..=18).contains(&chain_scale) {
            return outside("chain_scale", "6 to 18", chain_scale.to_string());
        }
        if asset.ledger_scale < VAULT_SCALE {
            return outside("ledger_scale", "6 to 18 for a token", asset.ledger_scale.to_string());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preset() -> serde_json::Value {
        serde_json::json!({
            "name": "prepaid",
            "assets": [{ "symbol": "FOIL", "ledger_scale": 9, "chain_scale": 18 }],
            "settings": {
                "epoch_s": 21_600, "hold_grace_s": 60, "job_deadline_s_max": 600, "idempotency_s": 86_400,
                "settle_units_min": 0, "voucher_s": 3_600, "authorisation_margin_epochs": 2
            },
            "rate_card": { "headroom_ppm": 150_000, "models": [{
                "model": "SmolLM2-135M-Instruct", "licence": "Apache-2.0", "proof_class": "re_executable",
                "asset": "FOIL", "price": "0.0000040", "per_units": 1, "operator_share_ppm": 800_000,
                "context_tokens": 2_048
            }]}
        })
    }

    fn hashes(_: &str) -> Option<ModelHashes> {
        let hash = |n| Hash32([n; 32]);
        Some(ModelHashes { weights: hash(1), tokenizer: hash(2), template: hash(3) })
    }

    #[test]
    fn a_preset_becomes_a_network_and_a_rate_card() {
        let preset: Preset = serde_json::from_value(preset()).unwrap();
        let network = preset.network("test.example/prepaid/0").unwrap();
        assert_eq!(network.settings.epoch_us, 21_600_000_000);
        let card = preset.rate_card(hashes).unwrap();
        assert_eq!((card.version, card.models[0].price), (1, Amount(4_000)));
        let missing = preset.rate_card(|_| None).unwrap_err();
        assert_eq!(missing, PresetError::HashesMissing("SmolLM2-135M-Instruct".into()));
    }

    /// Each edit must be refused, and the refusal must name the field.
    #[test]
    fn bounds_are_checked_by_name() {
        let network = |edit: &dyn Fn(&mut serde_json::Value)| {
            let mut value = preset();
            edit(&mut value);
            let preset: Preset = serde_json::from_value(value).map_err(|e| e.to_string())?;
            preset.network("test.example/prepaid/0").map_err(|e| e.to_string())?;
            preset.rate_card(hashes).map(|_| ()).map_err(|e| e.to_string())
        };
        assert_eq!(network(&|_| ()), Ok(()));
        let cases: [(&str, &str, serde_json::Value); 8] = [
            ("/settings/epoch_s", "epoch", 0.into()),
            ("/settings/voucher_s", "voucher", u64::MAX.into()),
            ("/settings/authorisation_margin_epochs", "authorisation_margin_epochs", 1_001.into()),
            ("/assets/0/symbol", "assets[0].symbol", "foil".into()),
            ("/assets/0/ledger_scale", "assets[0].ledger_scale", 5.into()),
            ("/assets/0/chain_scale", "assets[0].chain_scale", 19.into()),
            ("/rate_card/models/0/price", "the price of SmolLM2", "0.00000000001".into()),
            ("/rate_card/models/0/asset", "priced in OTHER", "OTHER".into()),
        ];
        for (path, says, value) in cases {
            let error = network(&|preset| *preset.pointer_mut(path).unwrap() = value.clone()).unwrap_err();
            assert!(error.contains(says), "{path}: {error}");
        }
        let unknown = network(&|preset| preset["settings"]["epoch"] = 1.into()).unwrap_err();
        assert!(unknown.contains("unknown field `epoch`"), "{unknown}");
    }
}
