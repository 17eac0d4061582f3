//! The economies' part of a preset: periods in seconds, amounts as decimal text, shares in millionths; and what it becomes.

use super::{Preset, PresetError};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::economy::{
    AllotmentRules, BountyRules, ConductRules, EconomyPublished, PackageRules, SignUpRules, TrustTier,
};
use serde::Deserialize;

/// See [`EconomyPublished`].
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetEconomy {
    /// Length of a day.
    pub day_s: u64,
    /// The daily allotment of stakers.
    pub allotment: Option<PresetAllotment>,
    /// Credit for new accounts.
    pub sign_up: Option<PresetSignUp>,
    /// Multipliers on under-supplied models.
    pub bounties: Option<PresetBounties>,
    /// What operators' conduct earns and costs them.
    pub conduct: Option<PresetConduct>,
    /// What packages promise.
    pub packages: Option<PresetPackages>,
}

/// See [`AllotmentRules`].
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetAllotment {
    /// Symbol of the asset.
    pub asset: String,
    /// Whole tokens.
    pub stake_min: String,
    /// Whole credits for one staked token, at most.
    pub per_token_max: String,
    /// Whole credits.
    pub pool_floor: String,
    /// Whole credits.
    pub pool_bound: String,
    /// A day's step, millionths.
    pub step_ppm: u32,
    /// The pool as a part of a mean day's revenue, millionths.
    pub revenue_ppm: u32,
    /// Models of the included lane; empty = all.
    pub models: Vec<String>,
    /// Jobs of one account at once.
    pub concurrency: u32,
    /// Requests of one account a minute.
    pub requests_per_minute: u32,
}

/// See [`SignUpRules`].
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetSignUp {
    /// Symbol of the asset.
    pub asset: String,
    /// Whole credits for one account.
    pub amount: String,
    /// Whole credits for all.
    pub budget: String,
    /// Whole credits for all accounts of one day.
    pub day_budget: String,
    /// How long it lives.
    pub life_s: u64,
    /// Models it pays for; empty = all.
    pub models: Vec<String>,
}

/// See [`BountyRules`].
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetBounties {
    /// Symbol of the asset.
    pub asset: String,
    /// Whole credits for all bounties.
    pub budget: String,
    /// A longer queue is a lack.
    pub queue_ms_target: u64,
    /// A larger fallback share is a lack, millionths.
    pub fallback_ppm_target: u32,
    /// Multiplier for each millionth of lack, millionths.
    pub gain_ppm: u32,
    /// The highest multiplier, millionths.
    pub multiplier_ppm_max: u32,
    /// How long one holds.
    pub life_s: u64,
    /// What trust unlocks.
    pub tiers: Vec<PresetTier>,
}

/// See [`TrustTier`].
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetTier {
    /// Since the operator registered.
    pub age_s: u64,
    /// Successes among what was judged, millionths.
    pub health_ppm: u32,
    /// The highest multiplier it unlocks, millionths.
    pub multiplier_ppm_max: u32,
}

/// See [`ConductRules`].
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetConduct {
    /// Days of the health window.
    pub window_days: u32,
    /// Until full capacity.
    pub ramp_s: u64,
    /// Capacity at registration, millionths.
    pub ramp_start_ppm: u32,
    /// Online time that is one success.
    pub uptime_success_s: u64,
    /// Cut after a switch, millionths.
    pub cut_ppm: u32,
    /// Until it is nothing.
    pub cut_s: u64,
    /// In so many steps.
    pub cut_steps: u32,
    /// Strikes that ban.
    pub strikes_max: u32,
    /// Part of late earnings that stays, millionths.
    pub reserve_ppm: u32,
    /// How late.
    pub reserve_days: u32,
}

/// See [`PackageRules`].
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetPackages {
    /// Requests in time, millionths.
    pub service_ppm_target: u32,
    /// In time: the first token within this.
    pub first_token_ms_max: u64,
    /// Credit for a missed day, millionths of what it paid.
    pub credit_ppm: u32,
    /// How long the credit lives.
    pub credit_life_s: u64,
    /// Jobs at once.
    pub concurrency: u32,
}

const MICROSECONDS: u64 = 1_000_000;

fn us(seconds: u64) -> u64 {
    seconds.saturating_mul(MICROSECONDS)
}

fn sorted(models: &[String]) -> Vec<String> {
    let mut models = models.to_vec();
    models.sort();
    models.dedup();
    models
}

impl Preset {
    /// Version 1 of the economies' rules; `None` for a network without. What no rule can hold is refused here by the
    /// field's path, the rest by the ledger when it is published.
    pub fn economy(&self) -> Result<Option<EconomyPublished>, PresetError> {
        let Some(economy) = &self.economy else { return Ok(None) };
        let outside = |field: &str, expected, given: String| {
            Err(PresetError::OutOfBounds { field: field.to_owned(), expected, given })
        };
        let (day, epoch) = (economy.day_s, self.settings.epoch_s);
        if epoch == 0 || day == 0 || !day.is_multiple_of(epoch) {
            let given = format!("{epoch} s in a day of {day} s");
            return outside("settings.epoch_s", "an epoch that divides the day", given);
        }
        let rules = EconomyPublished {
            version: 1,
            day_us: us(day),
            allotment: economy.allotment.as_ref().map(|part| self.allotment(part)).transpose()?,
            sign_up: economy.sign_up.as_ref().map(|part| self.sign_up(part)).transpose()?,
            bounties: economy.bounties.as_ref().map(|part| self.bounties(part)).transpose()?,
            conduct: economy.conduct.as_ref().map(conduct),
            packages: economy.packages.as_ref().map(packages),
        };
        Ok(Some(rules))
    }

    fn asset_of(&self, field: &str, symbol: &str) -> Result<(AssetId, u8), PresetError> {
        let at = self.assets.iter().position(|asset| asset.symbol == symbol);
        let at = at.ok_or_else(|| PresetError::OutOfBounds {
            field: field.to_owned(),
            expected: "the symbol of one of the preset's assets",
            given: symbol.to_owned(),
        })?;
        Ok((AssetId(at as u32), self.assets[at].ledger_scale))
    }

    fn allotment(&self, part: &PresetAllotment) -> Result<AllotmentRules, PresetError> {
        let field = |name: &str| format!("economy.allotment.{name}");
        let (asset, scale) = self.asset_of(&field("asset"), &part.asset)?;
        let amount = |name: &str, text: &str| parse(&field(name), text, scale);
        let stake = parse(&field("stake_min"), &part.stake_min, 6)?;
        let rules = AllotmentRules {
            asset,
            stake_units_min: u64::try_from(stake.0).unwrap_or(u64::MAX),
            per_token_max: amount("per_token_max", &part.per_token_max)?,
            pool_floor: amount("pool_floor", &part.pool_floor)?,
            pool_bound: amount("pool_bound", &part.pool_bound)?,
            step_ppm: part.step_ppm,
            revenue_ppm: part.revenue_ppm,
            models: sorted(&part.models),
            concurrency: part.concurrency,
            requests_per_minute: part.requests_per_minute,
        };
        if rules.pool_floor > rules.pool_bound {
            return Err(PresetError::OutOfBounds {
                field: field("pool_floor"),
                expected: "an allotment at most its bound (pool_bound)",
                given: format!("{} above {}", part.pool_floor, part.pool_bound),
            });
        }
        Ok(rules)
    }

    fn sign_up(&self, part: &PresetSignUp) -> Result<SignUpRules, PresetError> {
        let field = |name: &str| format!("economy.sign_up.{name}");
        let (asset, scale) = self.asset_of(&field("asset"), &part.asset)?;
        let amount = |name: &str, text: &str| parse(&field(name), text, scale);
        let rules = SignUpRules {
            asset,
            amount: amount("amount", &part.amount)?,
            budget: amount("budget", &part.budget)?,
            day_budget: amount("day_budget", &part.day_budget)?,
            life_us: us(part.life_s),
            models: sorted(&part.models),
        };
        if rules.amount > rules.day_budget || rules.day_budget > rules.budget {
            return Err(PresetError::OutOfBounds {
                field: field("day_budget"),
                expected: "amount <= day_budget <= budget",
                given: format!("{} <= {} <= {}", part.amount, part.day_budget, part.budget),
            });
        }
        Ok(rules)
    }

    fn bounties(&self, part: &PresetBounties) -> Result<BountyRules, PresetError> {
        let field = |name: &str| format!("economy.bounties.{name}");
        let (asset, scale) = self.asset_of(&field("asset"), &part.asset)?;
        for rate in &self.rate_card.models {
            let product = u64::from(rate.operator_share_ppm) * u64::from(part.multiplier_ppm_max);
            if product >= 1_000_000_000_000 {
                let (share, times) = (rate.operator_share_ppm, part.multiplier_ppm_max);
                return Err(PresetError::OutOfBounds {
                    field: field("multiplier_ppm_max"),
                    expected: "a multiplier that keeps every share below the whole charge",
                    given: format!("{}: {share} ppm x {times} ppm = {} ppm", rate.model, product / 1_000_000),
                });
            }
        }
        let tier = |tier: &PresetTier| TrustTier {
            age_us: us(tier.age_s),
            health_ppm: tier.health_ppm,
            multiplier_ppm_max: tier.multiplier_ppm_max,
        };
        Ok(BountyRules {
            asset,
            budget: parse(&field("budget"), &part.budget, scale)?,
            queue_ms_target: part.queue_ms_target,
            fallback_ppm_target: part.fallback_ppm_target,
            gain_ppm: part.gain_ppm,
            multiplier_ppm_max: part.multiplier_ppm_max,
            life_us: us(part.life_s),
            tiers: part.tiers.iter().map(tier).collect(),
        })
    }
}

fn conduct(part: &PresetConduct) -> ConductRules {
    ConductRules {
        window_days: part.window_days,
        ramp_us: us(part.ramp_s),
        ramp_start_ppm: part.ramp_start_ppm,
        uptime_success_us: us(part.uptime_success_s),
        cut_ppm: part.cut_ppm,
        cut_us: us(part.cut_s),
        cut_steps: part.cut_steps,
        strikes_max: part.strikes_max,
        reserve_ppm: part.reserve_ppm,
        reserve_days: part.reserve_days,
    }
}

fn packages(part: &PresetPackages) -> PackageRules {
    PackageRules {
        service_ppm_target: part.service_ppm_target,
        first_token_ms_max: part.first_token_ms_max,
        credit_ppm: part.credit_ppm,
        credit_life_us: us(part.credit_life_s),
        concurrency: part.concurrency,
    }
}

fn parse(field: &str, text: &str, scale: u8) -> Result<Amount, PresetError> {
    let parsed = Amount::parse_decimal(text, scale).ok().filter(|amount| amount.0 >= 0);
    parsed.ok_or_else(|| PresetError::OutOfBounds {
        field: field.to_owned(),
        expected: "a decimal of 0 or more with at most the asset's digits, as text",
        given: text.to_owned(),
    })
}
