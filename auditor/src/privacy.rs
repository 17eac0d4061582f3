//! `audit privacy`: whether anything stands in the log for ever that should not. Every text in every event must be a name
//! that the network published, or look like nothing about a person; ids must look drawn, not chosen.

use crate::checks::CheckKind;
use crate::copy::LogCopy;
use crate::error::AuditError;
use crate::log::each_event;
use crate::report::{Checks, Finding, Item, Report};
use crate::verify::{head, load_policy};
use protocol::event::{Event, EventBody};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Longest text that is not a published name: reasons of failed batches.
const FREE_TEXT_BYTES_MAX: usize = 200;

/// What to look through.
pub struct PrivacyOptions {
    /// A fetched copy, or a data directory.
    pub directory: PathBuf,
    /// The policy file; a fetched copy keeps its own.
    pub policy: Option<PathBuf>,
}

/// Looks at every text and id of every event. Never prints.
pub fn privacy(options: &PrivacyOptions) -> Result<Report, AuditError> {
    let copy = LogCopy::open(&options.directory)?;
    let mut report = Report::begin("privacy");
    let mut checks = Checks::default();
    let policy = load_policy(&copy, options.policy.as_deref(), &mut report)?;
    let Some(signed) = head(&copy, policy.as_ref(), &mut checks, &mut report)? else {
        return Ok(report.end(checks));
    };
    let mut lint = Lint::default();
    let walked = each_event(&copy, signed.checkpoint.size, |leaf, event, bytes| {
        lint.event(leaf, event, bytes, &mut checks);
        report.events += 1;
    });
    if let Err(fault) = walked {
        checks.of(CheckKind::Entries).fail_because(
            "every entry under the checkpoint",
            fault,
            "an entry is missing",
        );
    }
    for (what, count) in lint.counts {
        report.items.push(Item { what: what.to_owned(), note: format!("{count} texts"), ..Item::default() });
    }
    Ok(report.end(checks))
}

#[derive(Default)]
struct Lint {
    /// Names that the network itself published.
    published: BTreeSet<String>,
    counts: BTreeMap<&'static str, u64>,
}

impl Lint {
    fn event(&mut self, leaf: u64, event: &Event, bytes: &[u8], checks: &mut Checks) {
        self.publish(&event.body);
        let (mut texts, mut ids) = (Vec::new(), Vec::new());
        strings(bytes, &mut texts, &mut ids);
        for text in texts {
            self.text(leaf, event.body.kind(), &text, checks);
        }
        for id in ids {
            let check = checks.of(CheckKind::Privacy);
            check.examine();
            if spells_something(&id) {
                let shown = String::from_utf8_lossy(&id).into_owned();
                found(checks, leaf, "16 random bytes", &shown, "an id spells something");
            }
        }
    }

    fn publish(&mut self, body: &EventBody) {
        match body {
            EventBody::NetworkOpened(opened) => {
                self.published.extend([opened.origin.clone(), opened.preset.clone()]);
                self.published.extend(opened.assets.iter().map(|asset| asset.symbol.clone()));
            }
            EventBody::RateCardPublished(published) => {
                for rate in &published.card.models {
                    self.published.extend([rate.model.clone(), rate.licence.clone()]);
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, leaf: u64, kind: &'static str, text: &str, checks: &mut Checks) {
        *self.counts.entry(kind).or_default() += 1;
        checks.of(CheckKind::Privacy).examine();
        let pattern = PATTERNS.iter().find(|(_, is_it)| is_it(text));
        if let Some((what, _)) = pattern {
            return found(
                checks,
                leaf,
                "no personal datum",
                text,
                &format!("{kind} holds what looks like {what}"),
            );
        }
        if self.published.contains(text) {
            return;
        }
        match kind {
            "batch_failed" if text.len() <= FREE_TEXT_BYTES_MAX => {}
            // A node may announce a model before a card prices it.
            "node_registered" | "grant_issued"
                if !text.contains(' ') && text.len() <= FREE_TEXT_BYTES_MAX => {}
            _ => found(checks, leaf, "a published name", text, &format!("{kind} holds free text")),
        }
    }
}

fn found(checks: &mut Checks, leaf: u64, expected: &str, actual: &str, message: &str) {
    let actual: String = actual.chars().take(80).collect();
    let (expected, message) = (expected.to_owned(), message.to_owned());
    checks.of(CheckKind::Privacy).fail(Finding {
        leaf: Some(leaf),
        event_id: None,
        expected,
        actual,
        message,
    });
}

/// All texts, and all byte strings of an id's length, wherever they stand in an event's bytes.
fn strings(bytes: &[u8], texts: &mut Vec<String>, ids: &mut Vec<Vec<u8>>) {
    use minicbor::data::Token;
    for token in minicbor::Decoder::new(bytes).tokens().map_while(Result::ok) {
        match token {
            Token::String(text) => texts.push(text.to_owned()),
            Token::Bytes(id) if id.len() == 16 => ids.push(id.to_vec()),
            _ => {}
        }
    }
}

/// An id of letters, digits and a few signs was typed by somebody: one in three thousand million drawn ones looks so.
fn spells_something(id: &[u8]) -> bool {
    let typed = id.iter().all(|byte| byte.is_ascii_alphanumeric() || b".-_@".contains(byte));
    typed && id.iter().collect::<BTreeSet<_>>().len() > 2
}

type Pattern = (&'static str, fn(&str) -> bool);

const PATTERNS: [Pattern; 4] = [
    ("an e-mail address", is_email),
    ("an IP address", has_ip),
    ("a telephone number", is_phone),
    ("a key", is_key),
];

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || "<>()[]{},;\"'=/".contains(c)).filter(|word| !word.is_empty())
}

fn is_email(text: &str) -> bool {
    words(text).any(|word| {
        word.split_once('@').is_some_and(|(name, host)| {
            let tail = host.rsplit_once('.').map_or("", |(_, tail)| tail);
            !name.is_empty() && tail.len() >= 2 && tail.chars().all(|c| c.is_ascii_alphabetic())
        })
    })
}

fn has_ip(text: &str) -> bool {
    words(text).any(|word| {
        let host =
            word.rsplit_once(':').filter(|(host, _)| host.contains('.')).map_or(word, |(host, _)| host);
        host.parse::<std::net::IpAddr>().is_ok()
    })
}

fn is_phone(text: &str) -> bool {
    let text = text.trim();
    let digits = text.chars().filter(char::is_ascii_digit).count();
    text.starts_with('+')
        && (8..=15).contains(&digits)
        && text.chars().all(|c| "+- ()".contains(c) || c.is_ascii_digit())
}

fn is_key(text: &str) -> bool {
    words(text)
        .any(|word| ["sk-", "cf_", "Bearer"].iter().any(|prefix| word.starts_with(prefix)) && word.len() > 20)
}
