//! Preset files: the four that ship, and reading one with the line and the reason of what cannot work.

use ledger::preset::{Preset, PresetError};

/// Why a file is no preset: where, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
pub struct PresetFileError {
    /// The file's name.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// What was expected, what came, what to do.
    pub reason: String,
}

/// The presets that ship: name and text.
pub const SHIPPED: [(&str, &str); 4] = [
    ("prepaid", include_str!("../../presets/prepaid.toml")),
    ("allotment", include_str!("../../presets/allotment.toml")),
    ("circular", include_str!("../../presets/circular.toml")),
    ("mixed", include_str!("../../presets/mixed.toml")),
];

/// The text of a preset that ships.
pub fn shipped(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// Reads a preset and checks all of it.
pub fn read(file: &str, text: &str) -> Result<Preset, PresetFileError> {
    let preset: Preset = toml::from_str(text).map_err(|error| unreadable(file, text, &error))?;
    preset.check().map_err(|error| PresetFileError {
        file: file.to_owned(),
        line: line_of_error(text, &error),
        reason: error.to_string(),
    })?;
    Ok(preset)
}

fn unreadable(file: &str, text: &str, error: &toml::de::Error) -> PresetFileError {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = 1 + text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
    let reason = nearest(error.message()).unwrap_or_else(|| error.message().to_owned());
    PresetFileError { file: file.to_owned(), line, reason }
}

/// For an unknown key: the known one that looks most like it.
fn nearest(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let given = message.starts_with("unknown field").then(|| quoted.next())??;
    let close = |known: &&str| strsim::damerau_levenshtein(given, known);
    Some(match quoted.min_by_key(close).filter(|known| close(known) <= 3) {
        Some(known) => format!("there is no key `{given}` here: did you mean `{known}`?"),
        None => message.to_owned(),
    })
}

fn line_of_error(text: &str, error: &PresetError) -> usize {
    let field = match error {
        PresetError::OutOfBounds { field, .. } => field.clone(),
        PresetError::Price { model, .. }
        | PresetError::AssetUnknown { model, .. }
        | PresetError::HashesMissing(model) => {
            let named = format!("\"{model}\"");
            return 1 + text.lines().position(|line| line.contains(&named)).unwrap_or(0);
        }
    };
    line_of(text, &field)
}

/// The line of a key by its path, such as `rate_card.models[0].price`; of its table when the key is not there; of a key that
/// ends so when the path has no table.
fn line_of(text: &str, path: &str) -> usize {
    let paths = paths(text);
    let find = |wanted: &dyn Fn(&str) -> bool| paths.iter().find(|(_, known)| wanted(known));
    let table = path.rsplit_once('.').map_or(path, |(table, _)| table);
    let seconds = format!("{path}_s");
    let ends = |known: &str, name: &str| known.rsplit('.').next() == Some(name);
    find(&|known| known == path)
        .or_else(|| find(&|known| known == table))
        .or_else(|| find(&|known| ends(known, path) || ends(known, &seconds)))
        .map_or(1, |(line, _)| *line)
}

/// Every table and key with its line.
fn paths(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut table = String::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        if let Some(name) = text.strip_prefix("[[").and_then(|rest| rest.split("]]").next()) {
            let count = found.iter().filter(|(_, known)| is_element(known, name)).count();
            table = format!("{name}[{count}]");
            found.push((line, table.clone()));
        } else if let Some(name) = text.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            table = name.to_owned();
            found.push((line, table.clone()));
        } else if let Some((key, _)) = text.split_once('=').filter(|_| !text.starts_with(['#', '{'])) {
            let key = key.trim();
            found.push((line, if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }));
        }
    }
    found
}

fn is_element(known: &str, name: &str) -> bool {
    let rest = known.strip_prefix(name).and_then(|rest| rest.strip_prefix('['));
    rest.is_some_and(|rest| rest.ends_with(']') && !rest.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_that_ships_works() {
        for (name, text) in SHIPPED {
            let preset = read(name, text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(preset.name, name);
        }
    }

    /// Each mistake is refused at its line, with the figures.
    #[test]
    fn a_preset_that_cannot_work_is_refused_with_line_and_reason() {
        let allotment = shipped("allotment").unwrap();
        let refused = |from: &str, to: &str| {
            assert!(allotment.contains(from), "{from}");
            let text = allotment.replacen(from, to, 1);
            let error = read("my.toml", &text).expect_err(to);
            let line = text.lines().nth(error.line - 1).unwrap().to_owned();
            (line, error.reason)
        };
        let cases = [
            ("epoch_s = 21600", "epoch_s = 25000", "epoch_s", "25000 s in a day of 86400 s"),
            (
                "operator_share_ppm = 800000",
                "operator_share_ppm = 900000",
                "operator_share_ppm",
                "900000 + 150000 = 1050000 ppm",
            ),
            ("price = \"0.0000040\"", "price = \"0.0000020\"", "price", "0.0000020 x 800000 ppm = 0.0000016"),
            ("pool_floor = \"5\"", "pool_floor = \"60\"", "pool_floor", "60 above 50"),
            ("pool_bound = \"50\"", "pool_bond = \"50\"", "pool_bond", "did you mean `pool_bound`?"),
            ("voucher_s = 3600", "voucher_s = 0", "voucher_s", "above 0"),
            ("stake_min = \"100\"", "stake_min = \"-1\"", "stake_min", "-1"),
            ("chain_scale = 18", "chain_scale = 19", "chain_scale", "6 to 18"),
            ("asset = \"USDC\"\nstake_min", "asset = \"USDT\"\nstake_min", "asset", "USDT"),
        ];
        for (from, to, line, reason) in cases {
            let (at, said) = refused(from, to);
            assert!(at.trim().starts_with(line) && said.contains(reason), "{to}: line {at:?}: {said}");
        }
        let circular = shipped("circular").unwrap();
        let text = circular.replacen("multiplier_ppm_max = 1350000", "multiplier_ppm_max = 1450000", 1);
        let error = read("my.toml", &text).unwrap_err();
        assert!(error.reason.contains("700000 ppm x 1450000 ppm = 1015000 ppm"), "{error}");
    }
}
