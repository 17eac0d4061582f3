//! The bytes of one exported file, by file and form. What a form needs beside the log is asked for here, by its flag.

use super::{Export, File, Finance, Format, finding, render};
use crate::exit_code::Failure;
use anyhow::{Context, Result};
use projector::export::batch::BatchFiles;
use projector::export::beancount::{self, Detail};
use projector::export::fiat::{RATE_SCALE, Rates};
use projector::export::invoice::Invoice;
use projector::export::iso20022::{self, BankAccount};
use projector::export::statement::AccountStatement;
use projector::export::xero::XeroOptions;
use projector::export::{Provenance, claims, cryptio, parquet, quickbooks, workbook, xero};
use protocol::amount::Amount;
use protocol::event::Event;
use protocol::id::AccountId;
use std::collections::BTreeMap;

/// One file to be made.
pub(super) struct Made<'a> {
    pub(super) export: &'a Export,
    pub(super) events: &'a [Event],
    pub(super) provenance: &'a Provenance,
}

impl Made<'_> {
    /// Its bytes.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        let Made { export, events, provenance } = *self;
        let text = match (export.file, export.format) {
            (File::Postings, None | Some(Format::Csv))
            | (File::Hledger, None)
            | (File::Beancount, None | Some(Format::Daily)) => render(export.file, events, provenance)?,
            (File::Postings, Some(Format::Parquet)) => {
                let mut bytes = Vec::new();
                parquet::file(events, provenance, &mut bytes).map_err(finding)?;
                return Ok(bytes);
            }
            (File::Beancount, Some(Format::Full)) => {
                beancount::ledger(events, provenance, Detail::Full).map_err(finding)?
            }
            (File::Workbook, None | Some(Format::Xlsx)) => {
                return workbook::xlsx(events, provenance).map_err(finding);
            }
            (File::Statement, format) => return self.statement(format.unwrap_or(Format::Csv)),
            (File::Invoice, format) => self.invoice(format.unwrap_or(Format::Json))?,
            (File::Batch, format) => self.batch(format.unwrap_or(Format::Csv))?,
            (File::Cryptio, None | Some(Format::Csv)) => {
                let rates = export.finance.rates()?;
                let rates = (!rates.by_asset.is_empty()).then_some(&rates);
                cryptio::csv(events, provenance, rates).map_err(finding)?
            }
            (File::Xero, None | Some(Format::Csv)) => {
                let options = export.finance.xero()?;
                xero::csv(events, provenance, &options).map_err(finding)?
            }
            (File::Quickbooks, None | Some(Format::Csv)) => {
                quickbooks::csv(events, provenance, &export.finance.rates()?).map_err(finding)?
            }
            (File::Iso20022, None) => self.iso20022()?,
            (_, Some(format)) => return Err(self.no_form(format)),
        };
        Ok(text.into_bytes())
    }

    fn no_form(&self, format: Format) -> anyhow::Error {
        let name = self.export.file.name();
        anyhow::anyhow!("{name} has no form {format:?}; see --help").context(Failure::Usage)
    }

    fn account(&self) -> Result<AccountId> {
        let name = self.export.file.name();
        self.export
            .account
            .with_context(|| format!("{name} needs --account acct_..."))
            .context(Failure::Usage)
    }

    fn statement(&self, format: Format) -> Result<Vec<u8>> {
        let statement =
            AccountStatement::of(self.account()?, self.events, self.provenance).map_err(finding)?;
        match format {
            Format::Csv => Ok(statement.csv().into_bytes()),
            Format::Html => Ok(statement.html().into_bytes()),
            Format::Xlsx => workbook::statement(&statement).map_err(finding),
            _ => Err(self.no_form(format)),
        }
    }

    fn invoice(&self, format: Format) -> Result<String> {
        let invoice = Invoice::of(self.account()?, self.events, self.provenance).map_err(finding)?;
        match format {
            Format::Json => Ok(invoice.json()),
            Format::Csv => Ok(invoice.csv()),
            _ => Err(self.no_form(format)),
        }
    }

    fn batch_files(&self) -> Result<BatchFiles<'_>> {
        let batch = self.export.batch.context("give --batch batch_...").context(Failure::Usage)?;
        BatchFiles::find(self.events, batch, self.provenance).map_err(finding)
    }

    fn batch(&self, format: Format) -> Result<String> {
        let files = self.batch_files()?;
        match format {
            Format::Csv => Ok(files.csv()),
            Format::Json => Ok(files.json()),
            Format::Safe => {
                let safe = self.export.safe.context("--format safe needs --safe 0x..., the Safe that pays");
                files.safe(safe.context(Failure::Usage)?).map_err(finding)
            }
            Format::Claims => claims::json(&files, self.events).map_err(finding),
            Format::SafeAirdrop => files.safe_airdrop().map_err(finding),
            _ => Err(self.no_form(format)),
        }
    }

    fn iso20022(&self) -> Result<String> {
        let finance = &self.export.finance;
        if self.export.batch.is_none() {
            let (account, currency) = (self.account()?, &finance.currency);
            return iso20022::statement(account, currency, self.events, self.provenance).map_err(finding);
        }
        let files = self.batch_files()?;
        let debtor = finance.debtor.as_deref().context("payments need --debtor NAME,IBAN, who pays");
        let debtor =
            BankAccount::parse(debtor.context(Failure::Usage)?, "--debtor").context(Failure::Usage)?;
        let payees =
            finance.payees.as_ref().context("payments need --payees FILE, the payees' bank accounts");
        let payees = payees.context(Failure::Usage)?;
        let text = std::fs::read_to_string(payees).with_context(|| payees.display().to_string())?;
        let payees = BankAccount::parse_payees(&text).context(Failure::Usage)?;
        iso20022::payments(&files, &debtor, &payees).map_err(finding)
    }
}

impl Finance {
    fn rates(&self) -> Result<Rates> {
        let mut by_asset = BTreeMap::new();
        for text in &self.rate {
            let usage = || {
                anyhow::anyhow!("--rate {text}: expected ASSET=DECIMAL, as USDC=1").context(Failure::Usage)
            };
            let (asset, rate) = text.split_once('=').ok_or_else(usage)?;
            let rate = Amount::parse_decimal(rate, RATE_SCALE).map_err(|_| usage())?;
            by_asset.insert(asset.to_owned(), rate);
        }
        Ok(Rates { currency: self.currency.clone(), by_asset })
    }

    fn xero(&self) -> Result<XeroOptions> {
        let mut codes = BTreeMap::new();
        for text in &self.account_code {
            let code =
                text.split_once('=').with_context(|| format!("--account-code {text}: expected KIND=CODE"));
            let (kind, code) = code.context(Failure::Usage)?;
            codes.insert(kind.to_owned(), code.to_owned());
        }
        Ok(XeroOptions { rates: self.rates()?, codes, tax_rate: self.tax_rate.clone() })
    }
}
