//! Sizes: a function of at most 70 lines, a file of at most 800 outside tests, nothing over a mebibyte.

use super::masked::{Language, mask};
use super::{Finding, Source};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 800;
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Files people read as code; prose and data may be long.
const CODE: &[&str] = &["rs", "sol", "cu", "cuh", "py", "js", "cjs", "mjs", "ts", "sh"];

pub fn check(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    if source.bytes > FILE_BYTES_MAX {
        found.push(source.finding(
            1,
            "bytes",
            format!("has {} bytes (limit {FILE_BYTES_MAX})", source.bytes),
        ));
    }
    let Some(text) = &source.text else { return found };
    if source.is_generated() {
        return found;
    }
    let lines = text.lines().count();
    if CODE.contains(&source.extension()) && !source.is_test() && lines > FILE_LINES_MAX {
        let what = format!("has {lines} lines (limit {FILE_LINES_MAX})");
        found.push(Finding { measure: Some(lines), ..source.finding(1, "file", what) });
    }
    let functions = match source.extension() {
        "rs" => functions(&mask(text, Language::Rust), &["fn"]),
        "sol" => {
            functions(&mask(text, Language::Solidity), &["function", "constructor", "modifier", "receive"])
        }
        _ => Vec::new(),
    };
    for function in functions.into_iter().filter(|function| function.lines > FUNCTION_LINES_MAX) {
        let Function { name, line, lines } = function;
        let what = format!("fn {name} has {lines} lines (limit {FUNCTION_LINES_MAX})");
        found
            .push(Finding { measure: Some(lines), ..source.finding(line, format!("function {name}"), what) });
    }
    found
}

struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// From the keyword to the brace that closes the body, both counted. A declaration without a body is none.
fn functions(masked: &str, keywords: &[&str]) -> Vec<Function> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((start, after)) = next_keyword(masked, at, keywords) {
        at = after;
        let rest = &masked[after..];
        let trimmed = rest.trim_start();
        let name: String = trimmed.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let keyword = &masked[start..after];
        if name.is_empty() && keyword == "fn" {
            // The type of a pointer to a function.
            continue;
        }
        let Some(end) = end_of_body(rest) else { continue };
        let name = if name.is_empty() { keyword.to_owned() } else { name };
        let line = masked[..start].matches('\n').count() + 1;
        let lines = masked[start..after + end].matches('\n').count() + 1;
        found.push(Function { name, line, lines });
    }
    found
}

/// Start and end of the next keyword that stands as a word of its own.
fn next_keyword(masked: &str, from: usize, keywords: &[&str]) -> Option<(usize, usize)> {
    let part_of_a_word = |character: char| character.is_alphanumeric() || character == '_';
    keywords
        .iter()
        .filter_map(|keyword| {
            masked[from..].match_indices(keyword).map(|(offset, _)| from + offset).find_map(|start| {
                let end = start + keyword.len();
                let alone =
                    !masked[..start].ends_with(part_of_a_word) && !masked[end..].starts_with(part_of_a_word);
                alone.then_some((start, end))
            })
        })
        .min()
}

/// Where the body that follows a signature ends; `None` when a semicolon ends the signature.
fn end_of_body(signature: &str) -> Option<usize> {
    let mut brackets = 0_i32;
    let mut braces = 0_i32;
    for (offset, character) in signature.char_indices() {
        match character {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if brackets == 0 && braces == 0 => return None,
            // Braces inside brackets, before the body, belong to a constant in a type.
            '{' if braces > 0 || brackets == 0 => braces += 1,
            '}' if braces > 0 => {
                braces -= 1;
                if braces == 0 {
                    return Some(offset);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    fn body(lines: usize) -> String {
        "    step();\n".repeat(lines)
    }

    #[test]
    fn a_function_of_seventy_lines_is_the_longest() {
        let function =
            |inner: usize| format!("//! Holds.\n\nfn place(x: [u8; 3]) -> u8 {{\n{}}}\n", body(inner));
        check("ledger/src/hold.rs", &function(68), &[]);
        check(
            "ledger/src/hold.rs",
            &function(69),
            &["ledger/src/hold.rs:3 fn place has 71 lines (limit 70) [function place]"],
        );
    }

    #[test]
    fn solidity_counts_too() {
        let text = format!("contract V {{\nfunction a() external;\nconstructor() {{\n{}}}\n}}\n", body(80));
        check(
            "contracts/solidity/src/V.sol",
            &text,
            &["contracts/solidity/src/V.sol:3 fn constructor has 82 lines (limit 70) [function constructor]"],
        );
    }

    #[test]
    fn declarations_pointers_and_braces_in_text_do_not_mislead() {
        let names = |text: &str| {
            let masked = mask(text, Language::Rust);
            functions(&masked, &["fn"]).into_iter().map(|f| (f.name, f.lines)).collect::<Vec<_>>()
        };
        let text = "trait T { fn a(&self); fn b(&self) { x(\"}\") } }\ntype P = fn(u8) -> u8;\nfn c() {\n fn d() {}\n}\n";
        assert_eq!(names(text), [("b".to_owned(), 1), ("c".to_owned(), 3), ("d".to_owned(), 1)]);
    }

    #[test]
    fn a_file_of_eight_hundred_lines_is_the_longest_outside_tests() {
        let text = "//! Long.\n".repeat(801);
        check("ledger/src/hold.rs", &text, &["ledger/src/hold.rs:1 has 801 lines (limit 800) [file]"]);
        check("ledger/src/hold/tests.rs", &text, &[]);
        check("tests/tests/flow.rs", &text, &[]);
        check("specs/events.md", &text, &[]);
    }

    #[test]
    fn nothing_over_a_mebibyte() {
        let source = Source { path: "a.bin".to_owned(), bytes: FILE_BYTES_MAX + 1, text: None };
        assert_eq!(super::check(&source).len(), 1);
    }
}
