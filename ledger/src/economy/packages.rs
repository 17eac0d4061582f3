//! Sponsors' packages: what each paid on a day, and the credit for a missed service level.

use super::ONE_PPM;
use crate::apply::ApplyError;
use crate::command::MeasureService;
use crate::decide::Plan;
use crate::grants::{self, PRIORITY_PROMO};
use crate::refusal::Refusal;
use crate::state::State;
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::event::GrantId;
use protocol::event::economy::ServiceMeasured;
use protocol::event::grant::{Backing, GrantIssued, GrantSource};
use std::collections::{BTreeMap, BTreeSet};

/// Days of which a package's spending is kept; a level is measured within them.
const DAYS_KEPT: u64 = 8;

/// What packages paid, and which of their days were measured.
#[derive(Clone, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Packages {
    /// By day and bucket.
    #[n(0)]
    spent: BTreeMap<(u64, GrantId), Amount>,
    #[n(1)]
    measured: BTreeSet<(u64, GrantId)>,
}

impl Packages {
    pub(crate) fn spend(&mut self, day: u64, grant: GrantId, amount: i128) {
        while self.spent.first_key_value().is_some_and(|((first, _), _)| first + DAYS_KEPT < day) {
            self.spent.pop_first();
        }
        while self.measured.first().is_some_and(|(first, _)| first + DAYS_KEPT < day) {
            self.measured.pop_first();
        }
        self.spent.entry((day, grant)).or_default().0 += amount;
    }

    fn spent(&self, day: u64, grant: GrantId) -> i128 {
        self.spent.get(&(day, grant)).map_or(0, |amount| amount.0)
    }
}

/// Books how a package was served on a full day of the last week. Missed: credit, once.
pub(crate) fn decide(plan: &mut Plan, command: &MeasureService) -> Result<(), Refusal> {
    let state = plan.state;
    let economy = &state.economy;
    let rules = economy.rules()?.packages.as_ref().ok_or(Refusal::EconomyAbsent { part: "packages" })?;
    let no = |detail| Err(Refusal::ServiceRefused { package: command.package, detail });
    let Some(package) = state.grants.get(command.package) else { return no("there is no such bucket") };
    if package.source != GrantSource::Package {
        return no("the bucket is no package");
    }
    let today = economy.day_of(plan.now_us);
    if command.day >= today || command.day + DAYS_KEPT <= today {
        return no("a level is measured after its day, within a week");
    }
    if economy.packages.measured.contains(&(command.day, command.package)) {
        return no("that day was measured already");
    }
    if command.requests_met > command.requests || command.requests == 0 {
        return no("there were requests, and no more were in time than there were");
    }
    let spent = economy.packages.spent(command.day, command.package);
    let met_ppm = u128::from(command.requests_met) * u128::from(ONE_PPM) / u128::from(command.requests);
    let missed = met_ppm < u128::from(rules.service_ppm_target);
    let credit = spent.saturating_mul(i128::from(rules.credit_ppm)) / i128::from(ONE_PPM);
    let credit = if missed { credit } else { 0 };
    let grant = grants::next_id(state)?;
    if credit > 0 {
        let issued = GrantIssued {
            grant,
            account: state.accounts.id(package.account),
            source: GrantSource::Promo,
            asset: package.asset(),
            amount: Amount(credit),
            priority: PRIORITY_PROMO,
            scope: Vec::new(),
            expires_us: Some(plan.now_us.saturating_add(rules.credit_life_us)),
            backing: Backing::Unbacked,
        };
        grants::plan_issued(plan, issued)?;
    }
    plan.emit(ServiceMeasured {
        package: command.package,
        day: command.day,
        requests: command.requests,
        requests_met: command.requests_met,
        spent: Amount(spent),
        credit: Amount(credit),
        grant: (credit > 0).then_some(grant),
    });
    Ok(())
}

pub(crate) fn apply(state: &mut State, event: &ServiceMeasured) -> Result<(), ApplyError> {
    let is_new = state.economy.packages.measured.insert((event.day, event.package));
    if is_new { Ok(()) } else { Err(ApplyError::Impossible("a package's day is measured once")) }
}
