//! ISO 20022 for banks: a batch's payments (pain.001.001.09) and an account's statement (camt.053.001.08), for fiat legs
//! only. A token in such a file would be refused by its schema, so it is refused here, with the reason.

use super::batch::BatchFiles;
use super::legs::Legs;
use super::{ExportError, Provenance};
use crate::fold::is_memorandum;
use crate::statements::theirs;
use crate::time::{date, rfc3339};
use protocol::amount::Amount;
use protocol::asset::{Asset, VAULT_SCALE};
use protocol::event::Event;
use protocol::event::batch::Rail;
use protocol::id::AccountId;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Currencies of ISO 4217 in use.
const CURRENCIES: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD \
CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF \
IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP \
MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK \
SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD \
XOF XPF YER ZAR ZMW";
/// Fraction digits that the schemas allow.
const FRACTION_DIGITS_MAX: usize = 5;
/// Vault units in the smallest unit that banks transfer, a hundredth.
const UNITS_PER_HUNDREDTH: u64 = 10_000;

/// A bank account and whose it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BankAccount {
    /// Its holder.
    pub name: String,
    /// Its number, without spaces, checked.
    pub iban: String,
    /// Its bank; `None` where the IBAN is enough.
    pub bic: Option<String>,
}

impl BankAccount {
    /// Reads `NAME,IBAN` or `NAME,IBAN,BIC`; `place` is for the error.
    pub fn parse(text: &str, place: &str) -> Result<BankAccount, ExportError> {
        let wrong =
            |reason: &str| ExportError::BankAccount { place: place.to_owned(), reason: reason.to_owned() };
        let fields: Vec<&str> = text.split(',').map(str::trim).collect();
        let (name, iban, bic) = match fields.as_slice() {
            [name, iban] => (name, iban, None),
            [name, iban, bic] => (name, iban, Some((*bic).to_owned())),
            _ => return Err(wrong("expected NAME,IBAN or NAME,IBAN,BIC")),
        };
        if name.is_empty() || name.chars().count() > 70 {
            return Err(wrong("a name has 1 to 70 letters"));
        }
        let iban: String = iban.chars().filter(|c| *c != ' ').collect();
        if !is_iban(&iban) {
            return Err(wrong("the IBAN's check digits are wrong"));
        }
        let is_bic = |bic: &String| {
            matches!(bic.len(), 8 | 11) && bic.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        };
        if bic.as_ref().is_some_and(|bic| !is_bic(bic)) {
            return Err(wrong("a BIC has 8 or 11 capital letters and digits"));
        }
        Ok(BankAccount { name: (*name).to_owned(), iban, bic })
    }

    /// Reads a file of `ACCOUNT,NAME,IBAN[,BIC]` lines; empty ones and those that begin with # are left out.
    pub fn parse_payees(text: &str) -> Result<BTreeMap<AccountId, BankAccount>, ExportError> {
        let mut payees = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let place = format!("payees, line {}", number + 1);
            let wrong = || ExportError::BankAccount {
                place: place.clone(),
                reason: "expected ACCOUNT,NAME,IBAN[,BIC]".to_owned(),
            };
            let (account, rest) = line.split_once(',').ok_or_else(wrong)?;
            let account: AccountId = account.trim().parse().map_err(|_| wrong())?;
            payees.insert(account, BankAccount::parse(rest, &place)?);
        }
        Ok(payees)
    }
}

/// Modulo 97 over the letters as numbers (ISO 13616).
fn is_iban(text: &str) -> bool {
    if !(15..=34).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
    {
        return false;
    }
    let turned = text[4..].bytes().chain(text[..4].bytes());
    let rest = turned.fold(0_u32, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
    });
    rest == 1
}

/// Refuses what no bank holds.
fn fiat(asset: &Asset) -> Result<&str, ExportError> {
    let is_currency = CURRENCIES.split(' ').any(|code| code == asset.symbol);
    match is_currency && asset.chain_scale.is_none() {
        true => Ok(&asset.symbol),
        false => Err(ExportError::NotFiat { asset: asset.symbol.clone() }),
    }
}

/// The payments of a batch that was closed for a fiat file. Each payee gets the hundredths that the floor of its cumulative
/// payout grew by; what is smaller waits for the next batch. The platform's own part is not transferred.
pub fn payments(
    batch: &BatchFiles<'_>,
    debtor: &BankAccount,
    payees: &BTreeMap<AccountId, BankAccount>,
) -> Result<String, ExportError> {
    batch.check_rail(Rail::FiatFile)?;
    let currency = fiat(batch.asset())?;
    let closed = batch.closed();
    let mut transfers = String::new();
    let (mut count, mut total) = (0_u64, 0_u64);
    for payout in &closed.payouts {
        let before = payout.cumulative_units.saturating_sub(payout.added_units);
        let hundredths = payout.cumulative_units / UNITS_PER_HUNDREDTH - before / UNITS_PER_HUNDREDTH;
        if payout.account == AccountId::SYSTEM || hundredths == 0 {
            continue;
        }
        let payee = payout.account.to_string();
        let unknown = || ExportError::NoBankAccount { payee: payee.clone() };
        let bank = payees.get(&payout.account).ok_or_else(unknown)?;
        let amount = hundredths_text(hundredths);
        write!(
            transfers,
            "      <CdtTrfTxInf>\n        <PmtId><EndToEndId>{payee}</EndToEndId></PmtId>\n        <Amt><InstdAmt Ccy=\"{currency}\">{amount}</InstdAmt></Amt>\n        <CdtrAgt><FinInstnId>{}</FinInstnId></CdtrAgt>\n        <Cdtr><Nm>{}</Nm></Cdtr>\n        <CdtrAcct><Id><IBAN>{}</IBAN></Id></CdtrAcct>\n        <RmtInf><Ustrd>{} number {}, account {payee}</Ustrd></RmtInf>\n      </CdtTrfTxInf>\n",
            bank_words(bank), escape(&bank.name), bank.iban, closed.batch, closed.number,
        )
        .expect("writing to a string");
        count += 1;
        total += hundredths;
    }
    let (total, time_us) = (hundredths_text(total), batch.closed_time_us());
    let (created, day) = (rfc3339(time_us), date(time_us));
    Ok(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}<Document xmlns=\"urn:iso:std:iso:20022:tech:xsd:pain.001.001.09\">\n  <CstmrCdtTrfInitn>\n    <GrpHdr>\n      <MsgId>{id}</MsgId>\n      <CreDtTm>{created}</CreDtTm>\n      <NbOfTxs>{count}</NbOfTxs>\n      <CtrlSum>{total}</CtrlSum>\n      <InitgPty><Nm>{name}</Nm></InitgPty>\n    </GrpHdr>\n    <PmtInf>\n      <PmtInfId>{id}</PmtInfId>\n      <PmtMtd>TRF</PmtMtd>\n      <NbOfTxs>{count}</NbOfTxs>\n      <CtrlSum>{total}</CtrlSum>\n      <ReqdExctnDt><Dt>{day}</Dt></ReqdExctnDt>\n      <Dbtr><Nm>{name}</Nm></Dbtr>\n      <DbtrAcct><Id><IBAN>{iban}</IBAN></Id></DbtrAcct>\n      <DbtrAgt><FinInstnId>{agent}</FinInstnId></DbtrAgt>\n{transfers}    </PmtInf>\n  </CstmrCdtTrfInitn>\n</Document>\n",
        comment(batch.provenance()),
        id = closed.batch,
        name = escape(&debtor.name),
        iban = debtor.iban,
        agent = bank_words(debtor),
    ))
}

/// An account's statement in one currency, in the file's period.
pub fn statement(
    account: AccountId,
    currency: &str,
    events: &[Event],
    provenance: &Provenance,
) -> Result<String, ExportError> {
    let legs = Legs::of(events, provenance)?;
    let books = legs.books();
    let asset = books.assets().iter().find(|asset| asset.symbol == currency);
    let asset = asset.ok_or_else(|| ExportError::NotFiat { asset: currency.to_owned() })?;
    let currency = fiat(asset)?;
    if books.of_owner(account).next().is_none() {
        return Err(ExportError::UnknownAccount(account));
    }
    let (mut opening, mut closing, mut entries) = (0_i128, 0_i128, String::new());
    for event in events {
        for posting in &event.postings {
            let Some(known) = books.account(posting.account) else { continue };
            let is_theirs = known.opened.owner == account && known.opened.asset == asset.id;
            // The unused part of a credit line is no money.
            if !is_theirs || is_memorandum(known.opened.kind) {
                continue;
            }
            let amount = theirs(known.opened.kind, posting.amount);
            closing += amount.0;
            if provenance.period.as_ref().is_some_and(|period| event.header.time_us < period.from_us) {
                opening += amount.0;
                continue;
            }
            entry(&mut entries, event, amount, asset)?;
        }
    }
    let last = events.last().map_or(0, |event| event.header.leaf);
    let first_us = events.first().map_or(0, |event| event.header.time_us);
    let from_us = provenance.period.as_ref().map_or(first_us, |period| period.from_us);
    let to_us = match &provenance.period {
        Some(period) => period.to_us - 1,
        None => books.time_us(),
    };
    let balances = [("OPBD", opening, from_us), ("CLBD", closing, to_us)];
    let mut bal = String::new();
    for (code, amount, us) in balances {
        let (amount, side) = signed(Amount(amount), asset, last)?;
        writeln!(bal, "      <Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp><Amt Ccy=\"{currency}\">{amount}</Amt><CdtDbtInd>{side}</CdtDbtInd><Dt><Dt>{}</Dt></Dt></Bal>", date(us)).expect("writing to a string");
    }
    let id = format!("{}-{}", &account.to_string()[..25], provenance.size);
    Ok(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}<Document xmlns=\"urn:iso:std:iso:20022:tech:xsd:camt.053.001.08\">\n  <BkToCstmrStmt>\n    <GrpHdr><MsgId>{id}</MsgId><CreDtTm>{created}</CreDtTm></GrpHdr>\n    <Stmt>\n      <Id>{id}</Id>\n      <CreDtTm>{created}</CreDtTm>\n      <FrToDt><FrDtTm>{}</FrDtTm><ToDtTm>{}</ToDtTm></FrToDt>\n      <Acct><Id><Othr><Id>{account}</Id></Othr></Id><Ccy>{currency}</Ccy></Acct>\n{bal}{entries}    </Stmt>\n  </BkToCstmrStmt>\n</Document>\n",
        comment(provenance),
        rfc3339(from_us),
        rfc3339(to_us),
        created = rfc3339(books.time_us()),
    ))
}

fn entry(text: &mut String, event: &Event, amount: Amount, asset: &Asset) -> Result<(), ExportError> {
    let (leaf, kind) = (event.header.leaf, event.body.kind());
    let (amount, side) = signed(amount, asset, leaf)?;
    let time = rfc3339(event.header.time_us);
    let words = crate::statements::phrase(kind);
    write!(text, "      <Ntry>\n        <NtryRef>{leaf}</NtryRef>\n        <Amt Ccy=\"{}\">{amount}</Amt>\n        <CdtDbtInd>{side}</CdtDbtInd>\n        <Sts><Cd>BOOK</Cd></Sts>\n        <BookgDt><DtTm>{time}</DtTm></BookgDt>\n        <BkTxCd><Prtry><Cd>{kind}</Cd></Prtry></BkTxCd>\n        <AddtlNtryInf>{words}</AddtlNtryInf>\n      </Ntry>\n", asset.symbol).expect("writing to a string");
    Ok(())
}

/// The figure without sign, and its side.
fn signed(amount: Amount, asset: &Asset, leaf: u64) -> Result<(String, &'static str), ExportError> {
    let text = Amount(amount.0.abs()).to_decimal_string(asset.ledger_scale);
    if text.split_once('.').is_some_and(|(_, fraction)| fraction.len() > FRACTION_DIGITS_MAX) {
        return Err(ExportError::TooFine { leaf, amount: text });
    }
    Ok((text, if amount.0 < 0 { "DBIT" } else { "CRDT" }))
}

fn hundredths_text(hundredths: u64) -> String {
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

fn bank_words(bank: &BankAccount) -> String {
    match &bank.bic {
        Some(bic) => format!("<BICFI>{bic}</BICFI>"),
        None => "<Othr><Id>NOTPROVIDED</Id></Othr>".to_owned(),
    }
}

fn comment(provenance: &Provenance) -> String {
    let words: Vec<String> =
        provenance.pairs().iter().map(|(name, value)| format!("{name}: {value}")).collect();
    // Two hyphens would end the comment.
    format!("<!-- {} -->\n", words.join("; ").replace("--", "- -"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const _: () = assert!(VAULT_SCALE == 6 && UNITS_PER_HUNDREDTH == 10_000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ibans_are_checked() {
        // The registry's own examples.
        for good in ["GB29NWBK60161331926819", "DE89370400440532013000", "NO9386011117947"] {
            assert!(is_iban(good), "{good}");
        }
        for bad in
            ["GB29NWBK60161331926818", "DE8937040044053201300", "", "DE89 3704", "de89370400440532013000"]
        {
            assert!(!is_iban(bad), "{bad}");
        }
        assert!(BankAccount::parse("A,DE89 3704 0044 0532 0130 00,DEUTDEFF", "x").is_ok());
        for bad in ["A", "A,DE00", ",DE89370400440532013000", "A,DE89370400440532013000,deut"] {
            assert!(BankAccount::parse(bad, "x").is_err(), "{bad}");
        }
    }
}
