//! The arrows between rooms, read from their manifests. They point down, and this table is all there are.
//!
//! Tests may look anywhere, so dev-dependencies are free; the root, `tests` and `xtask` are no rooms.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use toml::Table;

use super::Finding;
use crate::workspace::Workspace;

struct Room {
    name: &'static str,
    may_use: &'static [&'static str],
}

/// ARCHITECTURE.md says why.
const ROOMS: &[Room] = &[
    Room { name: "protocol", may_use: &[] },
    Room { name: "kernels", may_use: &[] },
    Room { name: "ledger", may_use: &["protocol"] },
    Room { name: "economy", may_use: &["ledger", "protocol"] },
    Room { name: "auditor", may_use: &["protocol"] },
    Room { name: "worker", may_use: &["kernels", "protocol"] },
    Room { name: "journal", may_use: &["ledger", "protocol"] },
    Room { name: "simulator", may_use: &["journal", "ledger", "protocol"] },
    Room { name: "contracts", may_use: &["journal", "ledger", "protocol"] },
    Room { name: "projector", may_use: &["journal", "ledger", "protocol"] },
    Room { name: "dispatcher", may_use: &["journal", "kernels", "ledger", "projector", "protocol"] },
    Room {
        name: "bench",
        may_use: &["auditor", "dispatcher", "journal", "kernels", "ledger", "projector", "protocol"],
    },
    Room { name: "pages", may_use: &["dispatcher", "journal", "ledger", "projector", "protocol"] },
];

/// May use every room.
const OUTSIDE: &[&str] = &["tests", "xtask", "fuzz"];

/// Pure rooms: time, chance and the network arrive in their arguments.
const PURE_ROOMS: &[&str] = &["economy", "ledger", "protocol"];
const IMPURE_CRATES: &[&str] = &["async-nats", "axum", "futures", "rand", "reqwest", "tokio"];

pub fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for member in members(&read(workspace, "Cargo.toml")?) {
        if OUTSIDE.contains(&member.as_str()) {
            continue;
        }
        let path = format!("{member}/Cargo.toml");
        let text = read(workspace, &path)?;
        found.extend(check_manifest(&member, &path, &text)?);
    }
    Ok(found)
}

fn read(workspace: &Workspace, path: &str) -> Result<String> {
    fs::read_to_string(workspace.root.join(path)).with_context(|| format!("{path} cannot be read"))
}

fn members(root_manifest: &str) -> Vec<String> {
    let Ok(table) = root_manifest.parse::<Table>() else { return Vec::new() };
    let list = table
        .get("workspace")
        .and_then(|workspace| workspace.get("members"))
        .and_then(|list| list.as_array());
    list.into_iter().flatten().filter_map(|member| member.as_str().map(str::to_owned)).collect()
}

fn check_manifest(room: &str, path: &str, text: &str) -> Result<Vec<Finding>> {
    let finding = |line: usize, what: String| Finding {
        path: path.to_owned(),
        line,
        rule: "arrow".to_owned(),
        measure: None,
        what,
    };
    let Some(known) = ROOMS.iter().find(|known| known.name == room) else {
        return Ok(vec![finding(
            1,
            format!("{room} is no known room; say in xtask/src/tidy/rooms.rs whom it may use"),
        )]);
    };
    let table: Table = text.parse().with_context(|| format!("{path} is not TOML"))?;
    let mut found = Vec::new();
    for name in dependencies(&table) {
        let line = line_of(text, &name);
        let is_room = name == "counterfoil" || ROOMS.iter().any(|other| other.name == name);
        if is_room && !known.may_use.contains(&name.as_str()) {
            let allowed = if known.may_use.is_empty() { "none".to_owned() } else { known.may_use.join(", ") };
            found.push(finding(line, format!("{room} must not know {name} (it may use: {allowed})")));
        }
        if PURE_ROOMS.contains(&room) && IMPURE_CRATES.contains(&name.as_str()) {
            found.push(finding(line, format!("{room} is pure and must not use {name}")));
        }
    }
    Ok(found)
}

/// Names of the packages depended on, also per target; renamed ones by their real name.
fn dependencies(manifest: &Table) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let targets = manifest.get("target").and_then(|target| target.as_table());
    let per_target =
        targets.into_iter().flat_map(|targets| targets.values().filter_map(|one| one.as_table()));
    for table in std::iter::once(manifest).chain(per_target) {
        for kind in ["dependencies", "build-dependencies"] {
            let Some(list) = table.get(kind).and_then(|list| list.as_table()) else { continue };
            for (name, about) in list {
                let real = about.get("package").and_then(|package| package.as_str()).unwrap_or(name);
                names.insert(real.to_owned());
            }
        }
    }
    names
}

fn line_of(text: &str, name: &str) -> usize {
    text.lines()
        .position(|line| line.contains(name) && !line.starts_with("name"))
        .map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(room: &str, manifest: &str, expected: &[&str]) {
        let found = check_manifest(room, "Cargo.toml", manifest).unwrap();
        let told: Vec<String> =
            found.iter().map(|finding| format!("{} {}", finding.line, finding.what)).collect();
        assert_eq!(told, expected, "{manifest}");
    }

    #[test]
    fn arrows_point_down() {
        check("journal", "[dependencies]\nledger.workspace = true\nserde = \"1\"\n", &[]);
        check(
            "ledger",
            "[dependencies]\njournal.workspace = true\n",
            &["2 ledger must not know journal (it may use: protocol)"],
        );
        check("auditor", "[dev-dependencies]\nledger.workspace = true\n", &[]);
        check(
            "auditor",
            "[dependencies]\nbooks = { package = \"ledger\", path = \"../ledger\" }\n",
            &["2 auditor must not know ledger (it may use: protocol)"],
        );
        check(
            "kernels",
            "[target.'cfg(unix)'.dependencies]\nprotocol.workspace = true\n",
            &["2 kernels must not know protocol (it may use: none)"],
        );
        check(
            "protocol",
            "[build-dependencies]\ntokio = \"1\"\n",
            &["2 protocol is pure and must not use tokio"],
        );
    }

    #[test]
    fn a_new_room_has_to_say_whom_it_may_use() {
        check("cellar", "", &["1 cellar is no known room; say in xtask/src/tidy/rooms.rs whom it may use"]);
    }

    #[test]
    fn the_table_itself_has_no_circle() {
        for (index, room) in ROOMS.iter().enumerate() {
            for used in room.may_use {
                assert!(ROOMS[..index].iter().any(|below| below.name == *used), "{} -> {used}", room.name);
            }
        }
    }
}
