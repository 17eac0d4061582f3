//! What the command prints: results on stdout (text or JSON), everything else on stderr.

use serde_json::Value;
use std::io::{IsTerminal, Write};
use tracing_subscriber::EnvFilter;

/// Where results go.
#[derive(Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Text, or JSON when asked for.
    pub fn new(json: bool) -> Output {
        Output { json }
    }

    /// Whether stdout belongs to a machine.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// One result: the text for people, or the value as one line.
    pub fn result(self, text: &str, value: &Value) {
        let mut stdout = std::io::stdout().lock();
        // A reader that went away (`| head`) is not an error of ours.
        let _ = if self.json { writeln!(stdout, "{value}") } else { writeln!(stdout, "{text}") };
        let _ = stdout.flush();
    }

    /// A piece of text as it comes, for people only.
    pub fn piece(self, text: &str) {
        if !self.json {
            let mut stdout = std::io::stdout().lock();
            let _ = write!(stdout, "{text}");
            let _ = stdout.flush();
        }
    }

    /// Bytes of a file that was asked for on stdout.
    pub fn bytes(self, bytes: &[u8]) {
        let _ = std::io::stdout().lock().write_all(bytes);
    }
}

/// Structured logs on stderr; `COUNTERFOIL_LOG` sets the filter, warnings by default.
pub fn start_logs() {
    let filter = EnvFilter::try_from_env("COUNTERFOIL_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).init();
}
