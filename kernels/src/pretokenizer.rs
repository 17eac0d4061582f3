//! Cuts plain text into the words inside which byte-pair merges may happen (L). Hand-written scanners of the expressions that
//! the supported pre-tokenisers use; the tests compare them with the expressions themselves. No vocabulary here.

use unicode_general_category::{GeneralCategory as Category, get_general_category};

/// A pre-tokeniser by its name in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pretokenizer {
    /// `smollm`: every \p{N} stands alone, then the GPT-2 expression inside each piece.
    Smollm,
    /// `qwen2`.
    Qwen2,
    /// `llama-bpe`: as `qwen2` with up to three digits together; a word that is a token is that token.
    LlamaBpe,
}

impl Pretokenizer {
    /// By `tokenizer.ggml.pre`.
    pub(crate) fn by_name(name: &str) -> Option<Pretokenizer> {
        match name {
            "smollm" => Some(Pretokenizer::Smollm),
            "qwen2" => Some(Pretokenizer::Qwen2),
            "llama-bpe" => Some(Pretokenizer::LlamaBpe),
            _ => None,
        }
    }

    /// Calls `word` with each piece of `text`, in order; the pieces concatenate to `text`.
    pub(crate) fn split<'t>(self, text: &'t str, word: impl FnMut(&'t str)) {
        match self {
            Pretokenizer::Smollm => split_smollm(text, word),
            Pretokenizer::Qwen2 => split_qwen(text, 1, word),
            Pretokenizer::LlamaBpe => split_qwen(text, 3, word),
        }
    }
}

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
fn split_smollm<'t>(text: &'t str, mut word: impl FnMut(&'t str)) {
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

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
/// its case-insensitive part for ASCII letters only.
fn split_qwen<'t>(text: &'t str, digits: usize, mut word: impl FnMut(&'t str)) {
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = contraction_of_any_case(rest)
            .or_else(|| letters_with_one_before(rest, first))
            .or_else(|| numbers(rest, digits))
            .or_else(|| others_with_line_ends(rest))
            .unwrap_or_else(|| white_space_to_line_end(rest));
        word(&rest[..length]);
        rest = &rest[length..];
    }
}

fn contraction_of_any_case(rest: &str) -> Option<usize> {
    let matches = |c: &&&str| rest.get(..c.len()).is_some_and(|start| start.eq_ignore_ascii_case(c));
    CONTRACTIONS.iter().find(matches).map(|c| c.len())
}

/// `[^\r\n\p{L}\p{N}]?\p{L}+`
fn letters_with_one_before(rest: &str, first: char) -> Option<usize> {
    let before = match class(first) {
        Class::Letter => 0,
        Class::Number => return None,
        _ if first == '\r' || first == '\n' => return None,
        _ => first.len_utf8(),
    };
    match run(&rest[before..], Class::Letter) {
        0 => None,
        letters => Some(before + letters),
    }
}

/// `\p{N}{1,limit}`
fn numbers(rest: &str, limit: usize) -> Option<usize> {
    let length =
        rest.chars().take(limit).take_while(|c| class(*c) == Class::Number).map(char::len_utf8).sum();
    (length > 0).then_some(length)
}

/// ` ?[^\s\p{L}\p{N}]+[\r\n]*`
fn others_with_line_ends(rest: &str) -> Option<usize> {
    let space = usize::from(rest.starts_with(' '));
    match run(&rest[space..], Class::Other) {
        0 => None,
        others => {
            let end = space + others;
            let line_ends = rest[end..].bytes().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            Some(end + line_ends)
        }
    }
}

/// `\s*[\r\n]+|\s+(?!\S)|\s+`: to the last line end of the run if it has one.
fn white_space_to_line_end(rest: &str) -> usize {
    let all = run(rest, Class::Space);
    rest[..all].rfind(['\r', '\n']).map_or_else(|| white_space(rest), |at| at + 1)
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

const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];

fn contraction(rest: &str) -> Option<usize> {
    CONTRACTIONS.iter().find(|c| rest.starts_with(**c)).map(|c| c.len())
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
    use proptest::prelude::*;
    use std::sync::OnceLock;

    fn check(text: &str, expected: &[&str]) {
        let mut words = Vec::new();
        split_smollm(text, |w| words.push(w));
        assert_eq!(words, expected, "{text:?}");
    }

    const QWEN2: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

    fn by_expression<'t>(expression: &fancy_regex::Regex, text: &'t str) -> Vec<&'t str> {
        expression.find_iter(text).map(|found| found.unwrap().as_str()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// The scanners are the expressions, on any text.
        #[test]
        fn scanners_agree_with_the_expressions(
            text in prop_oneof!["[ '\\r\\n\\tsStTrReEvVlLdDmM09.,é漢ß½٣\u{a0}\u{2028}🙂\u{301}]{0,40}", "\\PC{0,40}", ".{0,40}"],
        ) {
            static EXPRESSIONS: OnceLock<[fancy_regex::Regex; 3]> = OnceLock::new();
            let [qwen2, llama, gpt2] = EXPRESSIONS.get_or_init(|| {
                [QWEN2, &QWEN2.replace(r"\p{N}| ?", r"\p{N}{1,3}| ?"), GPT2].map(|e| fancy_regex::Regex::new(e).unwrap())
            });
            let words = |pre: Pretokenizer| {
                let mut words = Vec::new();
                pre.split(&text, |word| words.push(word));
                words
            };
            prop_assert_eq!(words(Pretokenizer::Qwen2), by_expression(qwen2, &text));
            prop_assert_eq!(words(Pretokenizer::LlamaBpe), by_expression(llama, &text));
            // smollm: numbers stand alone, the expression runs between them.
            let numbers: Vec<&str> = by_expression(&fancy_regex::Regex::new(r"\p{N}|\P{N}+").unwrap(), &text);
            let expected: Vec<&str> = numbers.into_iter().flat_map(|piece| by_expression(gpt2, piece)).collect();
            prop_assert_eq!(words(Pretokenizer::Smollm), expected);
        }
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
