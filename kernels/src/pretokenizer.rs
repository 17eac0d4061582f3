//! Cuts plain text into the words inside which byte-pair merges may happen. Hand-written scanner for the pre-tokeniser `smollm`:
//! first every \p{N} stands alone, then the GPT-2 expression runs inside each piece:
//! `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`. No vocabulary here.

use unicode_general_category::{GeneralCategory as Category, get_general_category};

/// What the expression distinguishes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    Space,
    Other,
}

fn class(c: char) -> Class {
    if c.is_ascii_alphabetic() {
        return Class::Letter;
    }
    if c.is_whitespace() {
        return Class::Space;
    }
    match get_general_category(c) {
        Category::UppercaseLetter
        | Category::LowercaseLetter
        | Category::TitlecaseLetter
        | Category::ModifierLetter
        | Category::OtherLetter => Class::Letter,
        Category::DecimalNumber | Category::LetterNumber | Category::OtherNumber => Class::Number,
        _ => Class::Other,
    }
}

/// Calls `word` with each piece of `text`, in order; the pieces concatenate to `text`.
pub(crate) fn split_smollm<'t>(text: &'t str, mut word: impl FnMut(&'t str)) {
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.char_indices().find(|(_, c)| class(*c) == Class::Number);
        let (piece, digit_end) = match number {
            None => (rest, rest.len()),
            Some((at, c)) => (&rest[..at], at + c.len_utf8()),
        };
        split_gpt2_without_numbers(piece, &mut word);
        if digit_end > piece.len() {
            word(&rest[piece.len()..digit_end]);
        }
        rest = &rest[digit_end..];
    }
}

/// The GPT-2 expression on a piece that holds no number.
fn split_gpt2_without_numbers<'t>(piece: &'t str, word: &mut impl FnMut(&'t str)) {
    let mut rest = piece;
    while !rest.is_empty() {
        let length = contraction(rest).or_else(|| run_with_space(rest)).unwrap_or_else(|| white_space(rest));
        word(&rest[..length]);
        rest = &rest[length..];
    }
}

fn contraction(rest: &str) -> Option<usize> {
    ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].iter().find(|c| rest.starts_with(**c)).map(|c| c.len())
}

/// ` ?\p{L}+` or ` ?[^\s\p{L}\p{N}]+`: an optional U+0020, then a run of one class.
fn run_with_space(rest: &str) -> Option<usize> {
    let space = usize::from(rest.starts_with(' '));
    let body = &rest[space..];
    let kind = class(body.chars().next()?);
    if kind == Class::Space {
        return None;
    }
    Some(space + run(body, kind))
}

/// `\s+(?!\S)|\s+`: the whole run at the end of the piece, else all but the last character, else that one character.
fn white_space(rest: &str) -> usize {
    let all = run(rest, Class::Space);
    let last = rest[..all].chars().next_back().map_or(0, char::len_utf8);
    if all == rest.len() || all == last { all } else { all - last }
}

/// Bytes of the run of `kind` at the start of `text`.
fn run(text: &str, kind: Class) -> usize {
    text.char_indices().find(|(_, c)| class(*c) != kind).map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let mut words = Vec::new();
        split_smollm(text, |w| words.push(w));
        assert_eq!(words, expected, "{text:?}");
    }

    #[test]
    fn words_spaces_digits() {
        check("Hello world", &["Hello", " world"]);
        check("in 1984, 42x", &["in", " ", "1", "9", "8", "4", ",", " ", "4", "2", "x"]);
        check("a  b", &["a", " ", " b"]);
        check("a \n\n b", &["a", " \n\n", " b"]);
        check("\nWhat", &["\n", "What"]);
        check("end  ", &["end", "  "]);
        check("I'll don't 'S", &["I", "'ll", " don", "'t", " '", "S"]);
        check("x!? y", &["x", "!?", " y"]);
        check("été ½ 漢字", &["été", " ", "½", " 漢字"]);
        check("", &[]);
    }
}
