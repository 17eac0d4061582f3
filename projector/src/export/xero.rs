//! Xero manual journals: a month's summary in the currency of the books, + debit, - credit, at most 300 lines a file.

use super::fiat::{Line, Rates, journals, two_digits};
use super::{ExportError, Provenance, cell};
use protocol::event::Event;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What Xero imports at a time.
pub const LINES_MAX: u64 = 300;

/// Account codes by kind, where none is given: free numbers of Xero's ranges. `rounding` is Xero's own.
const CODES: &[(&str, &str)] = &[
    ("vault_asset", "621"),
    ("pot_asset", "622"),
    ("receivable", "623"),
    ("platform_treasury", "624"),
    ("customer_deposited", "821"),
    ("customer_package", "822"),
    ("customer_earned", "823"),
    ("customer_allotment", "824"),
    ("customer_promo", "825"),
    ("unattributed_deposits", "826"),
    ("operator_accrued", "831"),
    ("operator_settling", "832"),
    ("operator_payable", "833"),
    ("platform_revenue", "201"),
    ("breakage", "202"),
    ("promo_expense", "401"),
    ("rounding", "860"),
];

/// How the file is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XeroOptions {
    /// What assets are worth.
    pub rates: Rates,
    /// Codes of the books that are not the usual ones, by kind.
    pub codes: BTreeMap<String, String>,
    /// The name of the tax rate that every line has.
    pub tax_rate: String,
}

/// The whole file.
pub fn csv(events: &[Event], provenance: &Provenance, options: &XeroOptions) -> Result<String, ExportError> {
    let mut text =
        "*Narration,*Date,Description,*AccountCode,*TaxRate,*Amount,TrackingName1,TrackingOption1,\
                    TrackingName2,TrackingOption2\n"
            .to_owned();
    let mut rows = 0;
    for journal in journals(events, provenance, &options.rates)? {
        let (year, month, day) = journal.day();
        let narration = format!("{} {} as of size {}", provenance.origin, journal.month, provenance.size);
        for (line, minor) in &journal.lines {
            let (kind, what) = match line {
                Line::Kind(kind, asset) => {
                    (kind.name(), format!("{} {asset}", kind.name().replace('_', " ")))
                }
                Line::Rounding => ("rounding", "rounding".to_owned()),
            };
            let usual = CODES.iter().find(|(name, _)| *name == kind).map(|(_, code)| (*code).to_owned());
            let code = options.codes.get(kind).cloned().or(usual);
            let code = code.ok_or(ExportError::NoAccountCode { kind })?;
            let (narration, tax) = (cell(&narration), cell(&options.tax_rate));
            writeln!(
                text,
                "{narration},{day}/{month}/{year},{},{},{tax},{},,,,",
                cell(&what),
                cell(&code),
                two_digits(*minor)
            )
            .expect("writing to a string");
            rows += 1;
        }
    }
    if rows > LINES_MAX {
        return Err(ExportError::TooManyRows { rows, rows_max: LINES_MAX, format: "Xero" });
    }
    Ok(text)
}
