//! What must not stand in a file: leftovers, sleeps, names that say nothing, traces of one machine.
//!
//! The needles of the last kind are put together from pieces, so that this file does not find itself.

use super::masked::{Language, mask};
use super::{Finding, Source};

/// What looks like a path of one machine when it starts a path.
const MACHINE_FOLDERS: &[&str] = &["home", "root", "work", "tmp"];

/// Hosts of package registries, by name and ending: the user's own pip and npm know where to go.
const REGISTRY_HOSTS: &[(&str, &str)] = &[
    ("registry.npm", "js.org"),
    ("registry.yarn", "pkg.com"),
    ("py", "pi.org"),
    ("python", "hosted.org"),
    ("crates", ".io"),
    ("proxy.go", "lang.org"),
];

/// A file is called by the noun of the domain it holds.
const EMPTY_NAMES: &[&str] = &["utils", "common", "helpers", "types", "manager"];

const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!"];

/// Texts where a leftover mark would be ours.
const MARKED: &[&str] =
    &["rs", "sol", "cu", "cuh", "py", "js", "cjs", "mjs", "ts", "sh", "toml", "css", "html"];

pub fn check(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(finding) = check_name(source) {
        found.push(finding);
    }
    let Some(text) = &source.text else { return found };
    if source.is_generated() {
        return found;
    }
    for (index, line) in text.lines().enumerate() {
        check_traces(source, index + 1, line, &mut found);
    }
    if source.extension() == "rs" {
        if !text.trim_start().starts_with("//!") {
            found.push(source.finding(
                1,
                "header",
                "does not start with a //! header that says what lives here",
            ));
        }
        for (index, line) in mask(text, Language::Rust).lines().enumerate() {
            check_code(source, index + 1, line, &mut found);
        }
    }
    found
}

fn check_name(source: &Source) -> Option<Finding> {
    let name = source.path.rsplit('/').next().unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default();
    let folders = source.path.split('/').rev().skip(1);
    let empty = std::iter::once(stem).chain(folders).find(|part| EMPTY_NAMES.contains(part))?;
    Some(source.finding(
        1,
        "name",
        format!("is called {empty}, which says nothing; call it by what it holds"),
    ))
}

/// Rules for every text, prose included.
fn check_traces(source: &Source, number: usize, line: &str, found: &mut Vec<Finding>) {
    if let Some(folder) = MACHINE_FOLDERS.iter().find(|folder| starts_machine_path(line, folder)) {
        found.push(source.finding(number, "machine", format!("has a path of one machine, below {folder}")));
    }
    if REGISTRY_HOSTS.iter().any(|(name, ending)| line.contains(&format!("{name}{ending}"))) {
        found.push(source.finding(number, "host", "names the package registry's host"));
    }
    let design = ["shared", "design"].join("/");
    let above = ["..", "shared"].join("/");
    if line.contains(&design) || line.contains(&above) {
        found.push(source.finding(number, "shared", "mentions a folder that only this workshop has"));
    }
    let mark = ["FIX", "ME"].concat();
    let cross = "X".repeat(3);
    if MARKED.contains(&source.extension()) && (has_word(line, &mark) || has_word(line, &cross)) {
        found.push(source.finding(number, "leftover", "has a leftover mark"));
    }
}

/// Rules for masked Rust.
fn check_code(source: &Source, number: usize, line: &str, found: &mut Vec<Finding>) {
    for name in UNFINISHED.iter().filter(|name| has_word(line, name)) {
        found.push(source.finding(number, "unfinished", format!("has {name}")));
    }
    if line.contains("#[ignore") {
        found.push(source.finding(number, "ignore", "has an ignored test; a test runs or goes"));
    }
    let imported = |module: &str| {
        line.split_once(module)
            .is_some_and(|(_, list)| has_word(list.split('}').next().unwrap_or(list), "sleep"))
    };
    if has_word(line, "thread::sleep")
        || has_word(line, "time::sleep")
        || imported("thread::{")
        || imported("time::{")
    {
        found.push(source.finding(number, "sleep", "sleeps; wait for the thing itself"));
    }
}

/// `/NAME/` where a path begins: not after a letter, a digit or anything else that makes it the middle of a longer one.
fn starts_machine_path(line: &str, folder: &str) -> bool {
    let needle = format!("/{folder}/");
    line.match_indices(&needle).any(|(at, _)| {
        !line[..at].ends_with(|before: char| before.is_alphanumeric() || "._-})*>]~$".contains(before))
    })
}

/// The word with no letter, digit or underscore on either side.
fn has_word(line: &str, word: &str) -> bool {
    let part = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part))
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    /// A Rust file whose third line is this.
    fn check_line(line: &str, expected: Option<&str>) {
        let text = format!("//! Holds.\n\n{line}\n");
        let told: Vec<String> = expected.iter().map(|what| format!("ledger/src/hold.rs:3 {what}")).collect();
        check("ledger/src/hold.rs", &text, &told.iter().map(String::as_str).collect::<Vec<_>>());
    }

    #[test]
    fn leftovers() {
        check_line("fn f() { todo!() }", Some("has todo! [unfinished]"));
        check_line("fn f() { dbg!(1); }", Some("has dbg! [unfinished]"));
        check_line("fn f() { my_dbg!(1); }", None);
        check_line("// no todo!() in comments counts", None);
        check_line(&["// FIX", "ME later"].concat(), Some("has a leftover mark [leftover]"));
        check_line(&["// X", "XX"].concat(), Some("has a leftover mark [leftover]"));
        check_line("let template = \"XXXXXX\";", None);
        check_line("#[ignore = \"slow\"]", Some("has an ignored test; a test runs or goes [ignore]"));
    }

    #[test]
    fn sleeps() {
        let told = Some("sleeps; wait for the thing itself [sleep]");
        check_line("std::thread::sleep(wait);", told);
        check_line("tokio::time::sleep(wait).await;", told);
        check_line("use tokio::time::{timeout, sleep};", told);
        check_line("tokio::time::sleep_until(deadline).await;", None);
        check_line("use tokio::time::{sleep_until, timeout};", None);
    }

    #[test]
    fn traces_of_one_machine() {
        let path = |folder: &str| format!("let path = \"/{folder}/x\";");
        for folder in ["home", "root", "work", "tmp"] {
            check_line(&path(folder), Some(&format!("has a path of one machine, below {folder} [machine]")));
        }
        check_line(&path("etc"), None);
        check_line("let url = \"api/home/x\";", None);
        check_line("get(\"{base}/work/x\")", None);
        let host = ["crates", ".io"].concat();
        check_line(&format!("// see {host}"), Some("names the package registry's host [host]"));
        let design = ["shared", "design"].join("/");
        check_line(
            &format!("// see {design}"),
            Some("mentions a folder that only this workshop has [shared]"),
        );
    }

    #[test]
    fn headers_and_names() {
        check(
            "ledger/src/hold.rs",
            "fn f() {}\n",
            &["ledger/src/hold.rs:1 does not start with a //! header that says what lives here [header]"],
        );
        check("web/app.js", "let a;\n", &[]);
        check(
            "ledger/src/utils.rs",
            "//! Things.\n",
            &["ledger/src/utils.rs:1 is called utils, which says nothing; call it by what it holds [name]"],
        );
        check("ledger/src/commonplace.rs", "//! Holds.\n", &[]);
    }
}
