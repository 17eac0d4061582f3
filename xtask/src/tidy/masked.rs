//! Source text with the contents of comments, strings and characters blanked out, so that the rules which look at
//! code see only code. Lines and columns stay. Not a parser: braces and words are all that is asked of it.

/// How the two languages differ, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Rust,
    Solidity,
}

/// Same length in lines as `text`; only ASCII blanks stand where something was masked.
pub fn mask(text: &str, language: Language) -> String {
    let mut masker =
        Masker { input: text.chars().collect(), at: 0, output: String::with_capacity(text.len()), language };
    masker.run();
    masker.output
}

struct Masker {
    input: Vec<char>,
    at: usize,
    output: String,
    language: Language,
}

impl Masker {
    fn run(&mut self) {
        while self.at < self.input.len() {
            let (here, next) = (self.peek(0), self.peek(1));
            match (here, next) {
                ('/', '/') => self.blank_while(|character| character != '\n'),
                ('/', '*') => self.block_comment(),
                ('"', _) => self.string('"'),
                ('\'', _) if self.language == Language::Solidity => self.string('\''),
                ('\'', _) => self.character_or_lifetime(),
                ('r' | 'b' | 'c', _) if self.language == Language::Rust && self.starts_raw_string() => {
                    self.raw_string();
                }
                _ => self.keep(),
            }
        }
    }

    fn peek(&self, ahead: usize) -> char {
        self.input.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn keep(&mut self) {
        self.output.push(self.peek(0));
        self.at += 1;
    }

    fn blank(&mut self) {
        self.output.push(if self.peek(0) == '\n' { '\n' } else { ' ' });
        self.at += 1;
    }

    fn blank_while(&mut self, goes_on: impl Fn(char) -> bool) {
        while self.at < self.input.len() && goes_on(self.peek(0)) {
            self.blank();
        }
    }

    /// Rust's nest, Solidity's do not.
    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while self.at < self.input.len() {
            if self.peek(0) == '/' && self.peek(1) == '*' && (depth == 0 || self.language == Language::Rust) {
                depth += 1;
                self.blank();
                self.blank();
            } else if self.peek(0) == '*' && self.peek(1) == '/' {
                depth -= 1;
                self.blank();
                self.blank();
                if depth == 0 {
                    return;
                }
            } else {
                self.blank();
            }
        }
    }

    fn string(&mut self, quote: char) {
        self.keep();
        while self.at < self.input.len() && self.peek(0) != quote {
            if self.peek(0) == '\\' {
                self.blank();
            }
            if self.at < self.input.len() {
                self.blank();
            }
        }
        if self.at < self.input.len() {
            self.keep();
        }
    }

    /// `'a'`, `'\n'`, `'{'` are characters; `'a` is a lifetime.
    fn character_or_lifetime(&mut self) {
        if self.peek(1) == '\\' || self.peek(2) == '\'' {
            self.string('\'');
        } else {
            self.keep();
        }
    }

    /// `r"`, `r#"`, `br"`, `cr#"`, and not the end of a name such as `expr`.
    fn starts_raw_string(&self) -> bool {
        let before = self.at.checked_sub(1).map(|at| self.input[at]);
        if before.is_some_and(|character| character.is_alphanumeric() || character == '_') {
            return false;
        }
        let mut ahead = usize::from(self.peek(0) != 'r');
        if self.peek(ahead) != 'r' {
            return false;
        }
        ahead += 1;
        while self.peek(ahead) == '#' {
            ahead += 1;
        }
        self.peek(ahead) == '"'
    }

    fn raw_string(&mut self) {
        let mut hashes = 0;
        while self.peek(0) != '"' {
            hashes += usize::from(self.peek(0) == '#');
            self.keep();
        }
        self.keep();
        while self.at < self.input.len() {
            if self.peek(0) == '"' && (1..=hashes).all(|ahead| self.peek(ahead) == '#') {
                for _ in 0..=hashes {
                    self.keep();
                }
                return;
            }
            self.blank();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(mask(text, Language::Rust), expected, "{text}");
    }

    #[test]
    fn only_code_is_left() {
        check("a { // }\n}", "a {     \n}");
        check("/* { /* } */ { */ }", &format!("{}}}", " ".repeat(18)));
        check(r#"f("}\"}") }"#, r#"f("    ") }"#);
        check("['{', '\\'', 'x']", "[' ', '  ', ' ']");
        check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
        check("r#\"a\"}\"# }", "r#\"   \"# }");
        check("br\"{\" }", "br\" \" }");
        check("expr\"{\"", "expr\" \"");
    }

    #[test]
    fn solidity_has_single_quoted_strings_and_flat_comments() {
        assert_eq!(mask("x = '{'; /* /* */ }", Language::Solidity), "x = ' ';          }");
    }
}
